#!/usr/bin/env bash
# The gate beside other relays, in network namespaces: clients, host, net, and a router for those that intercept. Called by `cargo xtask bench` with the binary and an empty
# directory; prints rows of a Markdown document. CPU is user and system time of the relay's own process.
set -euo pipefail
program=$1 work=$2
host=cfbh-$$ net=cfbn-$$ client=cfbc-$$ router=cfbr-$$
export COFFERDAM_DATA_DIR=$work/data
pids=()
clean() {
    "$program" rm -f relay >/dev/null 2>&1 || true
    for pid in $(pgrep -f "$work/data gate$" || true) "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for name in $net $client $host $router; do
        for pid in $(ip netns pids "$name" 2>/dev/null); do kill "$pid" 2>/dev/null || true; done
        ip netns del "$name" 2>/dev/null || true
    done
    rm -rf "/etc/netns/$host"
}
trap clean EXIT
for name in $host $net $client $router; do ip netns add "$name"; ip -n "$name" link set lo up; done
ip link add n0 netns $host type veth peer name n1 netns $net
ip link add c0 netns $host type veth peer name c1 netns $client
ip -n $host addr add 93.184.0.1/24 dev n0; ip -n $net addr add 93.184.0.2/24 dev n1
ip -n $host addr add 10.9.0.2/24 dev c0; ip -n $client addr add 10.9.0.1/24 dev c1
ip -n $host link set n0 up; ip -n $net link set n1 up; ip -n $host link set c0 up; ip -n $client link set c1 up
# What intercepts stands on the way from a client to 93.185.0.1: no other relay's packets are tracked for it.
ip link add r0 netns $router type veth peer name n2 netns $net
ip link add r1 netns $router type veth peer name c2 netns $client
ip -n $router addr add 93.185.0.2/24 dev r0; ip -n $net addr add 93.185.0.1/24 dev n2
ip -n $router addr add 10.8.0.2/24 dev r1; ip -n $client addr add 10.8.0.1/24 dev c2
for link in r0 r1; do ip -n $router link set $link up; done; ip -n $net link set n2 up; ip -n $client link set c2 up
ip -n $client route add 93.185.0.0/24 via 10.8.0.2
ip netns exec $router nft "table ip relays { chain to { type nat hook prerouting priority dstnat; iifname r1 tcp dport 8084 redirect to :3129; iifname r1 tcp dport 8085 redirect to :3130; }; }"
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
http { access_log off; keepalive_requests 10000000; sendfile on; server { listen 93.184.0.2:8081 backlog=4096; listen 93.185.0.1:8084 backlog=4096; listen 93.185.0.1:8085 backlog=4096; root $work/www; } }
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
mkdir -p "$work/squid"; chmod 777 "$work" "$work/squid"
cat > "$work/squid.conf" <<C
http_port 3128
http_port 3129 intercept
http_access allow all
cache deny all
cache_mem 8 MB
pid_filename none
access_log stdio:$work/squid/access.log
cache_log $work/squid/cache.log
coredump_dir $work/squid
shutdown_lifetime 1 second
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
import os, socket, time
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.connect((open("/etc/resolv.conf").read().split()[1], 53))
resolver.setblocking(False)
slow = []
for _ in range(50):  # ask for much, and read nothing
    s = socket.create_connection(("site.test", 8081)); s.sendall(b"GET /big HTTP/1.1\r\nHost: site.test:8081\r\n\r\n"); slow.append(s)
asked = connected = 0
begun = shown = time.monotonic()
while True:  # as fast as one CPU can: five questions for each connection
    for _ in range(50):
        name = b"\x08" + os.urandom(4).hex().encode() + b"\4test\0"
        try: resolver.send(os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1")
        except OSError: pass
        asked += 1
    for _ in range(10):
        connected += 1
        with socket.socket() as s:
            s.setblocking(False)
            try: s.connect((f"93.184.{connected % 250}.{connected // 250 % 250}", 1 + connected % 60000))
            except OSError: pass
    try:
        while resolver.recv(512): pass
    except OSError: pass
    if time.monotonic() - shown > 1:
        shown = time.monotonic()
        print(f"{asked / (shown - begun) / 1000:.0f},000 questions and {connected / (shown - begun) / 1000:.0f},000 connections a second", flush=True)
P
ip netns exec $net python3 "$work/dns.py" & pids+=($!)
ip netns exec $net nginx -c "$work/origin.conf" 2>/dev/null & pids+=($!)
python3 "$work/log.py" "$work/log.sock" & pids+=($!)
sleep 0.5
ip netns exec $host haproxy -f "$work/haproxy.cfg" >/dev/null 2>&1 & pids+=($!)
ip netns exec $host nginx -c "$work/stream.conf" 2>/dev/null & pids+=($!)
ip netns exec $router squid -N -f "$work/squid.conf" >/dev/null 2>&1 & squid=$!; pids+=($squid)
ip netns exec $router mitmdump --mode transparent -p 3130 --set stream_large_bodies=1m --set confdir="$work/mitm" > "$work/mitm.log" 2>&1 & mitm=$!; pids+=($mitm)
ip netns exec $host "$program" run -d --name relay --allow site.test:8081 --deny denied.test -- sleep 3600 >/dev/null
sleep 1
declare -A pid=(
    [gate]=$(pgrep -f "$work/data gate$")
    [haproxy]=$(ip netns pids $host | xargs -I{} sh -c 'grep -qx haproxy /proc/{}/comm && echo {}' | tail -1)
    [nginx]=$(ip netns pids $host | xargs -I{} sh -c 'grep -qx nginx /proc/{}/comm && echo {}' | tail -1)
    [squid]=$squid [mitm]=$mitm
)
declare -A url=([squid]=http://93.185.0.1:8084 [mitm]=http://93.185.0.1:8085 [gate]=http://site.test:8081 [haproxy]=http://10.9.0.2:8082 [nginx]=http://10.9.0.2:8083 [direct]=http://93.184.0.2:8081)
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
    for relay in gate haproxy nginx squid mitm; do
        load $relay "Connection: close" >> "$work/$relay.new"
        load $relay "" >> "$work/$relay.keep"
    done
    for _ in 1 2 3; do
        for relay in gate haproxy nginx squid mitm direct; do bulk $relay >> "$work/$relay.bulk"; done
    done
    within gate python3 - site.test 8081 < "$work/latency.py" >> "$work/gate.latency"
    within haproxy python3 - 10.9.0.2 8082 < "$work/latency.py" >> "$work/haproxy.latency"
    within nginx python3 - 10.9.0.2 8083 < "$work/latency.py" >> "$work/nginx.latency"
    within squid python3 - 93.185.0.1 8084 < "$work/latency.py" >> "$work/squid.latency"
    within mitm python3 - 93.185.0.1 8085 < "$work/latency.py" >> "$work/mitm.latency"
    within direct python3 - 93.184.0.2 8081 < "$work/latency.py" >> "$work/direct.latency"
    within gate python3 - 93.184.0.2 8081 < "$work/latency.py" >> "$work/denied.latency"
done
# One that floods, beside: questions for names, connections that are not allowed, fifty that are and that nobody reads from.
tails() { for _ in 1 2 3 4 5; do within gate python3 - site.test 8081 0.99 < "$work/latency.py" >> "$work/$1.tail"; done; }
beside() { # name, command: the tails of another sandbox while it runs on one CPU
    ip netns exec $host "$program" run -d --name "$1" --cpus 1 --allow site.test:8081 -- "${@:2}" > /dev/null
    sleep 2
    tails "$1"
    "$program" logs "$1" > "$work/$1.said"
    "$program" rm -f "$1" > /dev/null
}
tails calm
beside flood python3 -c "$(cat "$work/flood.py")"
# What one that only computes costs its neighbours: the rest is the flood's. With two threads it takes two CPUs by turns.
beside burn sh -c 'while :; do :; done'
beside burn2 sh -c 'while :; do :; done & while :; do :; done'
at() { median < "$work/$1"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }
echo "| | gate, decision recorded | haproxy tcp, logged | nginx stream, logged | squid, intercepting | mitmproxy, transparent | direct | gate against haproxy |"
echo "|---|---|---|---|---|---|---|---|"
echo "| CPU of a new connection with one request, µs | $(at gate.new) | $(at haproxy.new) | $(at nginx.new) | $(at squid.new) | $(at mitm.new) | | $(ratio "$(at gate.new)" "$(at haproxy.new)")x |"
echo "| CPU of a request on a kept connection, µs | $(at gate.keep) | $(at haproxy.keep) | $(at nginx.keep) | $(at squid.keep) | $(at mitm.keep) | | $(ratio "$(at gate.keep)" "$(at haproxy.keep)")x |"
echo "| one stream, Gbit/s | $(at gate.bulk) | $(at haproxy.bulk) | $(at nginx.bulk) | $(at squid.bulk) | $(at mitm.bulk) | $(at direct.bulk) | $(ratio "$(at gate.bulk)" "$(at haproxy.bulk)")x |"
echo "| connect and first byte, median, µs | $(at gate.latency) | $(at haproxy.latency) | $(at nginx.latency) | $(at squid.latency) | $(at mitm.latency) | $(at direct.latency) | |"
echo "| a denied connect, median, µs | $(at denied.latency) | | | | | | |"
before=$(awk '/VmRSS/ {print $2}' "/proc/${pid[gate]}/status")
many=50
for _ in $(seq $many); do ip netns exec $host "$program" run -d --label bench=1 --allow site.test:8081 -- sleep 3600 >/dev/null; done
sleep 1
after=$(awk '/VmRSS/ {print $2}' "/proc/${pid[gate]}/status")
"$program" kill $("$program" ps -q) >/dev/null
echo "| memory of each of $many idle sandboxes in the gate, KiB | $(((after - before) / many)) | | | | | | |"
echo
echo "One stream through the gate has $(ratio "$(at gate.bulk)" "$(at direct.bulk)") of the direct path's throughput; a connect and first byte take $(($(at gate.latency) - $(at direct.latency))) µs longer."
echo "Beside a sandbox that floods ($(tail -n 1 "$work/flood.said"), on one CPU, and 50 slow readers), the 99th of 100 connects and first bytes takes $(ratio "$(at flood.tail)" "$(at calm.tail)") times as long: $(at flood.tail) µs instead of $(at calm.tail). Beside one that only computes it is $(at burn.tail) µs with one thread and $(at burn2.tail) µs with two."
