#!/bin/sh
# Neither the agent's other files nor what it did to this image's programs is here.
sum=$(awk '{ s += $1 } END { print s }' /ledger/numbers)
if [ "$(cat /ledger/answer.txt 2>/dev/null)" = "$sum" ] && [ ! -e /ledger/scratch ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
