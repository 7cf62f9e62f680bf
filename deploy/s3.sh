#!/bin/sh
# SeaweedFS as an S3 server with one user, who may do everything in it.
set -eu
cat >/tmp/s3.json <<JSON
{"identities": [{"name": "kino", "credentials": [{"accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
exec weed server -dir=/data -ip.bind=0.0.0.0 -s3 -s3.port=8333 -s3.config=/tmp/s3.json
