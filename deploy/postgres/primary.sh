#!/bin/bash
# Runs once, when the first node's data folder is made: who may replicate, and a database for each service.
set -euo pipefail
psql=(psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres)

"${psql[@]}" -v password="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE replication LOGIN REPLICATION PASSWORD :'password';
SQL
for standby in postgres_1 postgres_2 postgres_3; do
  "${psql[@]}" -c "SELECT pg_create_physical_replication_slot('$standby')"
done
for service in identity billing catalog ingest scheduler workflows playback; do
  "${psql[@]}" -c "CREATE DATABASE kino_$service"
done
echo "host replication replication all scram-sha-256" >>"$PGDATA/pg_hba.conf"
# From the next start on, which follows this script; a standby copies it, and is bound by it once it is promoted.
"${psql[@]}" -c "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"postgres-1\", \"postgres-2\", \"postgres-3\")'"
