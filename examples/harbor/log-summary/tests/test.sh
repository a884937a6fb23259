#!/bin/sh
# The expected counts are worked out here, from the log as the image had it.
errors=$(awk '$2 == "ERROR"' /tests/app.log | wc -l)
warnings=$(awk '$2 == "WARN"' /tests/app.log | wc -l)
right=0
grep -qx "errors=$errors" /data/summary.txt && right=$((right + 1))
grep -qx "warnings=$warnings" /data/summary.txt && right=$((right + 1))
case $right in 2) reward=1.0 ;; 1) reward=0.5 ;; *) reward=0.0 ;; esac
echo "{\"reward\": $reward}" > /logs/verifier/reward.json
