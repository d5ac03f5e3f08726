#!/bin/sh
# load.sh MODEL FILM: puts load on examples/serve with ApacheBench (Debian: apache2-utils), for ten
# seconds each with 1, 4, 16 and 64 clients at a time. For each answer of the service it prints how
# many there were, and the median, 95th and 99th percentile and maximum of the milliseconds that they
# took by the service's own log; and then the service's memory.
set -eu
cd "$(dirname "$0")/.."
at=127.0.0.1:8097
dir=$(mktemp -d)
go build -o "$dir/serve" ./examples/serve
"$dir/serve" -model "$1" -listen $at >/dev/null 2>"$dir/log" &
pid=$!
trap 'kill $pid; wait $pid || true; rm -r "$dir"' EXIT
until curl -sf $at/readyz >/dev/null; do sleep 0.2; done
for clients in 1 4 16 64; do
	before=$(wc -l <"$dir/log")
	ab -q -t 10 -n 1000000 -c $clients -p "$2" -T application/dicom http://$at/predict >"$dir/ab"
	sleep 8 # requests that ab has left behind
	echo "$clients clients: $(grep -E 'Complete|Non-2xx' "$dir/ab" | tr -s ' \n' ' ')"
	tail -n "+$((before + 1))" "$dir/log" | grep '"path":"/predict"' | sed 's/.*"status":\([0-9]*\).*"took_ms":\([0-9.]*\).*/\1 \2/' | sort -k1,1n -k2,2n |
		awk '{ t[$1, n[$1]++] = $2 }
			END { for (s in n) printf "  %s: %d, %.0f, %.0f, %.0f, %.0f ms\n", s, n[s], t[s, int(n[s]*.5)], t[s, int(n[s]*.95)], t[s, int(n[s]*.99)], t[s, n[s]-1] }'
	grep -E 'VmRSS|VmHWM' /proc/$pid/status | tr -s ' \t\n' ' '; echo
done
