#!/bin/sh
if [ "$(/usr/local/bin/greet mate)" = "ahoy, mate" ] && [ ! -e /etc/motd ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
