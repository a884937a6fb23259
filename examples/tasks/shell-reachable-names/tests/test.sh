#!/bin/sh
# Only what the policy allows has an address at all.
printf "api.example.com\ndocs.example.org\n" | cmp - output/resolved
