#!/bin/sh
set -eu
as_agent() { setpriv --reuid=10001 --regid=10001 --clear-groups "$@"; }
as_agent mkdir -p /tmp/build
as_agent gcc -std=c11 -Wall -Wextra -Werror -O1 -Isrc -o /tmp/build/test tests/test_utf8.c src/utf8.c
as_agent /tmp/build/test
