#!/bin/bash
# Make sure Debian's Chromium is there for the page's tests: install it when this user may, else say what to do.
set -euo pipefail

command -v chromium >/dev/null && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
fi
if command -v apt-get >/dev/null && [ "${as_root[*]-}" != false ]; then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  "${as_root[@]}" apt-get update -qq >"$log" 2>&1 || true
  # The page plays H.264, AV1, AAC and Opus: Debian's build decodes them all, Playwright's own lacks H.264 and AAC.
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium >>"$log" 2>&1 \
    || tail -n 20 "$log" >&2
fi
command -v chromium >/dev/null || {
  echo "chromium is missing, and this user may not install it: run 'apt-get install chromium' as root, then 'make test'." >&2
  exit 1
}
