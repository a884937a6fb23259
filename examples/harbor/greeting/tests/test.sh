#!/bin/sh
if [ "$(cat /app/greeting.txt 2>/dev/null)" = "hello, harbour" ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
