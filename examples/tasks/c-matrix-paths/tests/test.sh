#!/bin/sh
set -eu
chmod 700 tests   # the candidate runs here too, and is not to read what is expected
as_agent() { setpriv --reuid=10001 --regid=10001 --clear-groups "$@"; }
as_agent mkdir -p /tmp/build
as_agent gcc -std=c11 -O2 -o /tmp/build/paths src/paths.c
check() {
    got=$(as_agent timeout 10 /tmp/build/paths)
    [ "$got" = "$1" ] || { echo "expected $1, got '$got'"; exit 1; }
}
printf '5\n' | check 5
printf '123\n456\n789\n' | check 21
printf '1999\n1911\n1119\n9911\n' | check 7
printf '19111\n19191\n11191\n' | check 11
awk 'BEGIN { for (y = 0; y < 500; y++) { row = ""; for (x = 0; x < 500; x++) row = row ((y * 7 + x * 13 + (y * x) % 11) % 9 + 1); print row } }' | check 2616
