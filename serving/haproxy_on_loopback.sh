#!/bin/sh
# Ray Serve writes `bind :PORT` and `bind *:PORT` for its HAProxy's metrics and statistics, which opens them to every network
# (ray/serve/_private/haproxy_templates.py has no setting for it). This runs the same HAProxy with the same
# configuration, those two on loopback.
set -eu
for argument in "$@"; do
  case "$argument" in
    *.cfg) sed -i 's/bind \*\{0,1\}:\([0-9]\)/bind 127.0.0.1:\1/' "$argument" ;;
  esac
done
exec "$HETEROSERVE_HAPROXY" "$@"
