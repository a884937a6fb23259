#!/bin/sh
box=/srv/box/inbox
ok=1
[ "$(cat $box/note 2>/dev/null)" = delivered ] || ok=0
[ "$(stat -c '%a %u' $box 2>/dev/null)" = "700 1500" ] || ok=0
[ "$EXPECTED_OWNER" = dropper ] || ok=0
[ "$(id -u)" = 0 ] || ok=0
echo $ok > /logs/verifier/reward.txt
