#!/bin/sh
set -eu
as_agent() { setpriv --reuid=10001 --regid=10001 --clear-groups "$@"; }
as_agent env PYTHONPATH=src PYTHONDONTWRITEBYTECODE=1 python3 -m unittest -v tests/test_intervals.py
