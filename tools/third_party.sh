#!/bin/bash
# Put the contracts' imports into third_party/proto, from pinned packages: google/* from the wheel of
# googleapis-common-protos, buf/validate from the Go module proxy (no wheel and no npm package carries it).
set -euo pipefail
cd "$(dirname "$0")/.."
protovalidate=v1.2.2
sum='h1:2H/9/Kr97etSRqW3IJjTTb09z+zutkK2GDhDRbOnqr4='

command -v go >/dev/null || { echo "go is missing: install Go (any release since 1.21) to fetch buf/validate/validate.proto." >&2; exit 1; }
fetched=$(cd "${TMPDIR:-/tmp}" && GO111MODULE=on go mod download -json "github.com/bufbuild/protovalidate@$protovalidate")
field() { .venv/bin/python -c 'import json,sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$fetched" "$1"; }
[ "$(field Sum)" = "$sum" ] || { echo "protovalidate $protovalidate has the sum $(field Sum), expected $sum." >&2; exit 1; }

wheel=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf third_party/proto
for package in google/api google/rpc google/type; do
  mkdir -p "third_party/proto/$package"
  cp "$wheel/$package"/*.proto "third_party/proto/$package/"
done
mkdir -p third_party/proto/buf/validate
cp "$(field Dir)/proto/protovalidate/buf/validate/validate.proto" third_party/proto/buf/validate/
chmod -R u+w third_party
