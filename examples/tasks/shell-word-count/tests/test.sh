#!/bin/sh
set -eu
chmod 700 tests   # the candidate runs here too, and is not to read what is expected
as_agent() { setpriv --reuid=10001 --regid=10001 --clear-groups "$@"; }
check() {
    got=$(printf "$1" | as_agent sh src/count.sh)
    [ "$got" = "$2" ] || { echo "count of '$1' is '$got', expected $2"; exit 1; }
}
check "" 0
check "one" 1
check "one two" 2
check "  leading and   many   blanks  " 4
check "tab\there\nand a line\n" 5
check "$(seq 1 500 | tr "\n" " ")" 500
echo "all counts are right"
