#!/bin/sh
while read -r name; do getent hosts "$name" > /dev/null && echo "$name"; done < src/names > output/resolved
