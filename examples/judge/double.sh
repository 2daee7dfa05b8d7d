#!/bin/sh
# A right answer to "double the number".
read -r n
echo $((n * 2))
