#!/bin/sh
# The stock is what the service has; the agent never sees this file.
[ "$(cat output/total)" = 5282 ]
