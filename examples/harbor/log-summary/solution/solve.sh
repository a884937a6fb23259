#!/bin/sh
set -eu
awk '$2 == "ERROR" { e++ } $2 == "WARN" { w++ } END { print "errors=" e + 0; print "warnings=" w + 0 }' /data/app.log > /data/summary.txt
