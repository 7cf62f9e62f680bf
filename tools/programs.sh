#!/bin/bash
# Make sure the programs of Debian that the tests use are there: install them when this user may, else say what to do.
# chromium for the page and for players in pages (it decodes H.264, AV1, AAC and Opus; Playwright's own build lacks H.264
# and AAC), mpv as a player of its own.
set -euo pipefail

missing=()
for program in chromium mpv; do command -v "$program" >/dev/null || missing+=("$program"); done
[ "${#missing[@]}" -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
fi
if command -v apt-get >/dev/null && [ "${as_root[*]-}" != false ]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  "${as_root[@]}" apt-get update -qq >"$log" 2>&1 || true
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1 \
    || tail -n 20 "$log" >&2
fi
for program in "${missing[@]}"; do
  command -v "$program" >/dev/null || {
    echo "$program is missing, and this user may not install it: run 'apt-get install ${missing[*]}' as root, then 'make test'." >&2
    exit 1
  }
done
