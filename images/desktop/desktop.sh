#!/bin/sh
# Starts X and the window manager, waits until both answer, then does what it is told.
set -eu
export DISPLAY="${DISPLAY:-:99}"
Xvfb "$DISPLAY" -screen 0 "${SCREEN:-1280x800x24}" -nolisten tcp -noreset > /tmp/xvfb.log 2>&1 &
tries=0
until xdpyinfo > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo "desktop: X does not start:" >&2; cat /tmp/xvfb.log >&2; exit 1; }
    sleep 0.1
done
fluxbox > /tmp/fluxbox.log 2>&1 &
exec "$@"
