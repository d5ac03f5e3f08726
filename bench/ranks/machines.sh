#!/bin/sh
# Runs a command twice, as rank 0 and rank 1, as if on two machines: in two network
# namespaces that are connected by a link with the given bandwidth and, if the kernel has
# netem, the given delay. Needs root and iproute2.
#
#	go build -o build/ranks ./bench/ranks
#	sudo bench/ranks/machines.sh 1gbit 500us build/ranks -each 2 -size 96
set -eu
[ $# -ge 3 ] || { echo "usage: machines.sh BANDWIDTH DELAY COMMAND..." >&2; exit 2; }
rate=$1 delay=$2
shift 2

clean() { ip netns del hc0 2>/dev/null || true; ip netns del hc1 2>/dev/null || true; }
trap clean EXIT INT TERM
clean
ip netns add hc0
ip netns add hc1
ip link add hc0 netns hc0 type veth peer name hc1 netns hc1
for i in 0 1; do
	ip -n hc$i addr add 10.77.0.$((i + 1))/24 dev hc$i
	ip -n hc$i link set hc$i up
	ip -n hc$i link set lo up
	if ! ip netns exec hc$i tc qdisc add dev hc$i root netem rate "$rate" delay "$delay" 2>/dev/null; then
		[ $i = 1 ] || echo "this kernel has no netem: the bandwidth is set, the delay is not" >&2
		ip netns exec hc$i tc qdisc add dev hc$i root tbf rate "$rate" burst 2mb latency 200ms
	fi
done

on() {
	rank=$1
	shift
	ip netns exec hc$rank env RANK=$rank WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 \
		MASTER_ADDR=10.77.0.1 MASTER_PORT=29500 GLOO_SOCKET_IFNAME=hc$rank "$@"
}
on 1 "$@" &
other=$!
on 0 "$@"
wait $other
