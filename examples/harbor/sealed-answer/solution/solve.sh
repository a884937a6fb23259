#!/bin/sh
set -eu
touch /work/scratch
awk '{ s += $1 } END { print s }' /work/numbers > /work/answer.txt
