#!/bin/sh
set -eu
printf '%s\n' '#!/bin/sh' '# Prints the number of words on standard input.' 'wc -w | tr -d " "' > src/count.sh
