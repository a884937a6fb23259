#!/bin/sh
set -eu
seq 2 999 | awk '{ for (d = 2; d * d <= $1; d++) if ($1 % d == 0) next; print }' | cmp - output/primes
