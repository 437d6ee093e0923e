# Sourced by scripts that show something. start_server ARGUMENTS... runs `foe serve` on a free port in the background until the
# script ends, and sets `server`, its process, and `url`. stop_server stops it, and says that it has stopped cleanly.
log=$(mktemp)
trap 'kill "${server:-}" 2>/dev/null || true; rm -f "$log"' EXIT

start_server() {
  build/foe serve "$@" >"$log" 2>&1 &
  server=$!
  for _ in $(seq 300); do
    url=$(grep -om1 'http://[0-9.:]*' "$log") && return
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
  done
  echo "the server was not ready within 30 s:" >&2
  cat "$log" >&2
  exit 1
}

stop_server() {
  kill -TERM "$server"
  wait "$server" && echo "The server has stopped cleanly." || { echo "the server ended with status $?:" >&2; cat "$log" >&2; exit 1; }
}
