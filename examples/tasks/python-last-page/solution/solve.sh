#!/bin/sh
set -eu
sed -i "s|return total // size|return -(-total // size)|" src/paging.py
