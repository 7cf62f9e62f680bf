#!/bin/bash
# A standby: copies the first node when its own data folder is empty, then follows it.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA" && chown postgres:postgres "$PGDATA" && chmod 700 "$PGDATA"
  primary="host=postgres-1 port=5432 user=replication password=$REPLICATION_PASSWORD application_name=$HOSTNAME"
  until gosu postgres pg_basebackup --dbname "$primary" --pgdata "$PGDATA" --write-recovery-conf \
    --wal-method stream --slot "${HOSTNAME//-/_}" --checkpoint fast; do
    # A copy that broke off is begun again.
    find "$PGDATA" -mindepth 1 -delete
    sleep 2
  done
fi
exec docker-entrypoint.sh "$@"
