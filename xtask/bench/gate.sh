#!/usr/bin/env bash
# The gate beside other relays, in three network namespaces: clients, host, net. Called by `cargo xtask bench` with the binary and an empty
# directory; prints rows of a Markdown document. CPU is user and system time of the relay's own process.
set -euo pipefail
program=$1 work=$2
host=cfbh-$$ net=cfbn-$$ client=cfbc-$$
export COFFERDAM_DATA_DIR=$work/data
pids=()
clean() {
    "$program" rm -f relay >/dev/null 2>&1 || true
    for pid in $(pgrep -f "$work/data gate$" || true) "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for name in $net $client $host; do
        for pid in $(ip netns pids "$name" 2>/dev/null); do kill "$pid" 2>/dev/null || true; done
        ip netns del "$name" 2>/dev/null || true
    done
    rm -rf "/etc/netns/$host"
}
trap clean EXIT
for name in $host $net $client; do ip netns add "$name"; ip -n "$name" link set lo up; done
ip link add n0 netns $host type veth peer name n1 netns $net
ip link add c0 netns $host type veth peer name c1 netns $client
ip -n $host addr add 93.184.0.1/24 dev n0; ip -n $net addr add 93.184.0.2/24 dev n1
ip -n $host addr add 10.9.0.2/24 dev c0; ip -n $client addr add 10.9.0.1/24 dev c1
ip -n $host link set n0 up; ip -n $net link set n1 up; ip -n $host link set c0 up; ip -n $client link set c1 up
mkdir -p "/etc/netns/$host"
echo "nameserver 93.184.0.2" > "/etc/netns/$host/resolv.conf"
mkdir -p "$work/www"
head -c 1024 /dev/zero > "$work/www/k"
truncate -s 1500M "$work/www/big"
# Once read, it is in memory: else who comes first pays for it.
cat "$work/www/big" > /dev/null
cat > "$work/dns.py" <<'P'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("93.184.0.2", 53))
while True:
    q, a = s.recvfrom(2048)
    four = q[-4:-2] == b"\0\1" or q.find(b"\0\0\1\0\1") > 0
    s.sendto(q[:2] + b"\x81\x80\0\1" + (b"\0\1" if four else b"\0\0") + b"\0\0\0\0" + q[12:q.index(b"\0", 12) + 5] + (b"\xc0\x0c\0\1\0\1\0\0\1\0\0\4" + socket.inet_aton("93.184.0.2") if four else b""), a)
P
cat > "$work/origin.conf" <<C
worker_processes 1; daemon off; pid $work/origin.pid; error_log $work/origin.err;
events { worker_connections 8192; }
http { access_log off; keepalive_requests 10000000; sendfile on; server { listen 93.184.0.2:8081 backlog=4096; root $work/www; } }
C
cat > "$work/haproxy.cfg" <<C
global
 maxconn 8000
 nbthread 1
 log $work/log.sock local0
defaults
 mode tcp
 log global
 option tcplog
 timeout connect 5s
 timeout client 60s
 timeout server 60s
frontend in
 bind 10.9.0.2:8082
 default_backend out
backend out
 server origin 93.184.0.2:8081
C
cat > "$work/stream.conf" <<C
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 1; daemon off; pid $work/stream.pid; error_log $work/stream.err;
events { worker_connections 8192; }
stream { log_format l '\$remote_addr \$bytes_sent'; access_log $work/stream.log l; server { listen 10.9.0.2:8083; proxy_pass 93.184.0.2:8081; } }
C
cat > "$work/log.py" <<'P'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1])
while True: s.recv(65536)
P
cat > "$work/latency.py" <<'P'
import socket, sys, time
host, port, count, part = sys.argv[1], int(sys.argv[2]), 400, float((sys.argv + ["0.5"])[3])
address = socket.getaddrinfo(host, port, socket.AF_INET)[0][4]
samples = []
for _ in range(count):
    begun, s = time.perf_counter(), socket.socket()
    try:
        s.connect(address); s.sendall(b"GET /k HTTP/1.1\r\nHost: %s:%d\r\n\r\n" % (host.encode(), port)); s.recv(1)
    except OSError: pass
    samples.append(time.perf_counter() - begun); s.close()
print(round(sorted(samples)[int(count * part)] * 1e6))
P
cat > "$work/flood.py" <<'P'
import os, socket, threading
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.connect((open("/etc/resolv.conf").read().split()[1], 53))
resolver.setblocking(False)
slow = []
for _ in range(50):  # ask for much, and read nothing
    s = socket.create_connection(("site.test", 8081)); s.sendall(b"GET /big HTTP/1.1\r\nHost: site.test:8081\r\n\r\n"); slow.append(s)
def questions():
    while True:
        for _ in range(64):
            name = b"\x08" + os.urandom(4).hex().encode() + b"\4test\0"
            try: resolver.send(os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1")
            except OSError: pass
        try:
            while resolver.recv(512): pass
        except OSError: pass
def connects():
    number = 0
    while True:
        number += 1
        with socket.socket() as s:
            s.setblocking(False)
            try: s.connect((f"93.184.{number % 250}.{number // 250 % 250}", 1 + number % 60000))
            except OSError: pass
for work in (questions, connects): threading.Thread(target=work, daemon=True).start()
threading.Event().wait()
P
ip netns exec $net python3 "$work/dns.py" & pids+=($!)
ip netns exec $net nginx -c "$work/origin.conf" 2>/dev/null & pids+=($!)
python3 "$work/log.py" "$work/log.sock" & pids+=($!)
sleep 0.5
ip netns exec $host haproxy -f "$work/haproxy.cfg" >/dev/null 2>&1 & pids+=($!)
ip netns exec $host nginx -c "$work/stream.conf" 2>/dev/null & pids+=($!)
ip netns exec $host "$program" run -d --name relay --allow site.test:8081 --deny denied.test -- sleep 3600 >/dev/null
sleep 1
declare -A pid=(
    [gate]=$(pgrep -f "$work/data gate$")
    [haproxy]=$(ip netns pids $host | xargs -I{} sh -c 'grep -qx haproxy /proc/{}/comm && echo {}' | tail -1)
    [nginx]=$(ip netns pids $host | xargs -I{} sh -c 'grep -qx nginx /proc/{}/comm && echo {}' | tail -1)
)
declare -A url=([gate]=http://site.test:8081 [haproxy]=http://10.9.0.2:8082 [nginx]=http://10.9.0.2:8083 [direct]=http://93.184.0.2:8081)
within() {
    case $1 in
        gate) shift; ip netns exec $host "$program" exec relay "$@" ;;
        direct) shift; ip netns exec $host "$@" ;;
        *) shift; ip netns exec $client "$@" ;;
    esac
}
ticks() { awk '{print $14 + $15}' "/proc/${pid[$1]}/stat"; }
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
load() { # relay, header: microseconds of CPU a request
    local before after requests
    before=$(ticks "$1")
    requests=$(within "$1" wrk -t1 -c32 -d2 ${2:+-H "$2"} "${url[$1]}/k" | awk '/requests in/ {print $1}')
    after=$(ticks "$1")
    awk -v t=$((after - before)) -v n="$requests" 'BEGIN {printf "%.1f\n", t * 10000 / n}'
}
bulk() { within "$1" curl -s -o /dev/null -w '%{speed_download}\n' "${url[$1]}/big" | awk '{printf "%.2f\n", $1 * 8 / 1e9}'; }
for round in 1 2 3; do
    for relay in gate haproxy nginx; do
        load $relay "Connection: close" >> "$work/$relay.new"
        load $relay "" >> "$work/$relay.keep"
    done
    for _ in 1 2 3; do
        for relay in gate haproxy nginx direct; do bulk $relay >> "$work/$relay.bulk"; done
    done
    within gate python3 - site.test 8081 < "$work/latency.py" >> "$work/gate.latency"
    within haproxy python3 - 10.9.0.2 8082 < "$work/latency.py" >> "$work/haproxy.latency"
    within nginx python3 - 10.9.0.2 8083 < "$work/latency.py" >> "$work/nginx.latency"
    within direct python3 - 93.184.0.2 8081 < "$work/latency.py" >> "$work/direct.latency"
    within gate python3 - 93.184.0.2 8081 < "$work/latency.py" >> "$work/denied.latency"
done
# One that floods, beside: questions for names, connections that are not allowed, fifty that are and that nobody reads from.
for _ in 1 2 3; do within gate python3 - site.test 8081 0.99 < "$work/latency.py" >> "$work/calm.tail"; done
ip netns exec $host "$program" run -d --name flood --cpus 1 --allow site.test:8081 -- python3 -c "$(cat "$work/flood.py")" > /dev/null
sleep 2
for _ in 1 2 3; do within gate python3 - site.test 8081 0.99 < "$work/latency.py" >> "$work/flooded.tail"; done
"$program" rm -f flood > /dev/null
# What one that only computes costs its neighbours: the rest is the flood's.
ip netns exec $host "$program" run -d --name burn --cpus 1 -- sh -c 'while :; do :; done' > /dev/null
sleep 2
for _ in 1 2 3; do within gate python3 - site.test 8081 0.99 < "$work/latency.py" >> "$work/burned.tail"; done
"$program" rm -f burn > /dev/null
at() { median < "$work/$1"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }
echo "| | gate, decision recorded | haproxy tcp, logged | nginx stream, logged | direct | gate against haproxy |"
echo "|---|---|---|---|---|---|"
echo "| CPU of a new connection with one request, µs | $(at gate.new) | $(at haproxy.new) | $(at nginx.new) | | $(ratio "$(at gate.new)" "$(at haproxy.new)")x |"
echo "| CPU of a request on a kept connection, µs | $(at gate.keep) | $(at haproxy.keep) | $(at nginx.keep) | | $(ratio "$(at gate.keep)" "$(at haproxy.keep)")x |"
echo "| one stream, Gbit/s | $(at gate.bulk) | $(at haproxy.bulk) | $(at nginx.bulk) | $(at direct.bulk) | $(ratio "$(at gate.bulk)" "$(at haproxy.bulk)")x |"
echo "| connect and first byte, median, µs | $(at gate.latency) | $(at haproxy.latency) | $(at nginx.latency) | $(at direct.latency) | |"
echo "| a denied connect, median, µs | $(at denied.latency) | | | | |"
before=$(awk '/VmRSS/ {print $2}' "/proc/${pid[gate]}/status")
many=50
for _ in $(seq $many); do ip netns exec $host "$program" run -d --label bench=1 --allow site.test:8081 -- sleep 3600 >/dev/null; done
sleep 1
after=$(awk '/VmRSS/ {print $2}' "/proc/${pid[gate]}/status")
"$program" kill $("$program" ps -q) >/dev/null
echo "| memory of each of $many idle sandboxes in the gate, KiB | $(((after - before) / many)) | | | | |"
echo
echo "One stream through the gate has $(ratio "$(at gate.bulk)" "$(at direct.bulk)") of the direct path's throughput; a connect and first byte take $(($(at gate.latency) - $(at direct.latency))) µs longer."
echo "Beside a sandbox that floods (one CPU of questions and denied connections, 50 slow readers), the 99th of 100 connects and first bytes takes $(ratio "$(at flooded.tail)" "$(at calm.tail)") times as long: $(at flooded.tail) µs instead of $(at calm.tail); beside one that only computes $(at burned.tail), so the flood itself is $(ratio "$(at flooded.tail)" "$(at burned.tail)") times."
