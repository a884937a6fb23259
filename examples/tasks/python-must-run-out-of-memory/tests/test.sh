#!/bin/sh
[ "$(cat output/largest)" = 2147483573 ]
