#!/bin/sh
# Prints the number of words on standard input.
tr -cd " " | wc -c | tr -d " "
