#!/bin/sh
# An HTTP server and a client, tapped at both ends: calls as text, packets as a file. See README.md.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
weir=${WEIR:-weir}

# A network of its own: nothing of this is to be heard outside, and no port is taken.
if [ -z "${WEIR_DEMO:-}" ]; then
    WEIR_DEMO=$(mktemp -d)
    export WEIR_DEMO
    exec unshare --net sh "$here/demo.sh"
fi
cd "$WEIR_DEMO"
ip link set lo up

# Everything that is started here ends with this script.
server= at_server= at_client=
trap 'for pid in $server $at_server $at_client; do kill -INT "$pid" 2>/dev/null || true; done' EXIT

# A tap is ready when it says how many sockets were open before.
wait_for_tap() {
    until grep -q 'sockets were open' "$1"; do
        kill -0 "$2" 2>/dev/null || { cat "$1" >&2; exit 1; }
        sleep 0.1
    done
}

# A tap ends as with Ctrl-C, and tells its ledger.
end_tap() {
    kill -INT "$1"
    wait "$1" || { cat "$2" >&2; exit 1; }
}

nginx -p "$WEIR_DEMO" -c "$here/nginx.conf" &
server=$!

"$weir" tap --pid "$server" --role server --payload full -v --reason demo --audit audit.log >calls.txt 2>server.log &
at_server=$!
"$weir" tap --comm curl --role client port=8080 --payload full --reason demo --audit audit.log -w trace.pcapng 2>client.log &
at_client=$!
wait_for_tap server.log "$at_server"
wait_for_tap client.log "$at_client"

url=http://127.0.0.1:8080
curl -s --retry 20 --retry-connrefused --retry-delay 1 -o answers "$url/reviews/3"
curl -s -o answers -H 'Authorization: Bearer this-is-secret' "$url/reviews/4?token=this-is-secret"
curl -s -o answers -H 'Content-Type: application/json' -d '{"user": "alice", "password": "this-is-secret"}' "$url/login"
curl -s -o answers "$url/missing"

# The server ends a connection a moment after its client.
for _ in $(seq 100); do
    ss -Htn state connected sport = :8080 | grep -q . || break
    sleep 0.1
done
end_tap "$at_server" server.log
end_tap "$at_client" client.log
at_server= at_client=

echo "What the server was asked (calls.txt):"
cat calls.txt
echo
echo "The ledger at the server:"
grep -v '^weir:' server.log
echo
if command -v tshark >/dev/null; then
    echo "The second conversation of the client, from trace.pcapng:"
    tshark -n -q -r trace.pcapng -z follow,tcp,ascii,1
fi
if grep -q this-is-secret calls.txt trace.pcapng; then
    echo "a secret was written" >&2
    exit 1
fi
echo "Files are in $WEIR_DEMO"
