#!/bin/sh
[ "$(cat output/state)" = done ]
