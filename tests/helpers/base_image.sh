#!/bin/sh
# Builds a base for the engine images where no registry with the official ones can be reached: Debian 12 with Python 3.11,
# as bare as python:slim. For tests only. Usage: base_image.sh [IMAGE] [MIRROR] [PACKAGE,...]   (without a mirror,
# debootstrap's own)
set -eu
image=${1:-localhost/heteroserve-base:bookworm}
mirror=${2:-}
more=${3:+,$3}

if podman image exists "$image"; then
  exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/base-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2086
debootstrap --variant=minbase --include="ca-certificates,python3,python3-dev,python3-venv$more" bookworm "$work/root" $mirror \
  >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; exit 1; }
rm -rf "$work/root"/var/cache/apt/archives/*.deb "$work/root"/var/lib/apt/lists/* "$work/root"/usr/share/doc/* \
  "$work/root"/usr/share/man/*
tar -C "$work/root" --numeric-owner -cf - . | podman import --quiet - "$image" >/dev/null
