#!/bin/sh
echo "hello, harbour" > greeting.txt
