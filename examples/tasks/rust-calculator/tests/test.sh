#!/bin/sh
chmod 700 tests   # the candidate runs here too, and is not to read what is expected
as_agent() { setpriv --reuid=10001 --regid=10001 --clear-groups "$@"; }
as_agent mkdir -p /tmp/build
as_agent rustc -O -o /tmp/build/calculator src/calculator.rs || exit 1
# What it prints is compared here; it cannot print a verdict.
check() {
    name=$1 expected=$2
    got=$(as_agent timeout 10 /tmp/build/calculator 2>/dev/null | tr '\n' ' ')
    if [ "$got" = "$expected " ]; then echo "PASSED $name"; else echo "FAILED $name"; fi
}
printf '1+2\n10-3-4\n7\n' | check sums "3 3 7"
printf '2+3*4\n(2+3)*4\n2*-3\n-(4-6)*5\n' | check precedence "14 20 -6 10"
printf '0-7/2\n(0-7)/2\n7/(0-2)\n' | check rounding "-3 -3 -3"
printf '1/0\n9223372036854775807+1\n2+\n)\n\nx\n5\n' | check errors "error error error error error error 5"
{ head -c 200000 /dev/zero | tr '\0' '('; echo; echo 4; } | check depth "error 4"
