#!/bin/sh
set -eu
as_agent() { setpriv --reuid=10001 --regid=10001 --clear-groups "$@"; }
as_agent mkdir -p /tmp/build
cp tests/test_roman.rs /tmp/test_roman.rs
as_agent rustc --edition 2021 --test -o /tmp/build/test /tmp/test_roman.rs
as_agent /tmp/build/test
