#!/bin/sh
set -eu
mkdir -p /usr/local/bin
printf '#!/bin/sh\necho "%s, $1"\n' "$GREETING" > /usr/local/bin/greet
chmod 755 /usr/local/bin/greet
rm -f /etc/motd
