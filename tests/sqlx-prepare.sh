#!/usr/bin/env bash
# Regenerates .sqlx against a throw-away PostgreSQL with all migrations applied.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
home=$(mktemp -d)
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown postgres "$home"
trap 'as_postgres "$bin/pg_ctl" -D "$home/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$home"' EXIT
as_postgres "$bin/initdb" -D "$home/data" --encoding=UTF8 --locale=C -A trust -U postgres >/dev/null
port=$((20000 + RANDOM % 20000))
as_postgres "$bin/pg_ctl" -D "$home/data" -w -o "-p $port -c fsync=off -c listen_addresses=127.0.0.1 -k $home" -l "$home/log" start >/dev/null
psql() { command psql -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres "$@"; }
psql -c 'create role cnx_owner login createrole'
psql -c 'create database prepare owner cnx_owner'
for migration in migrations/*.sql; do
  PGOPTIONS= command psql -q -v ON_ERROR_STOP=1 -1 -h 127.0.0.1 -p "$port" -U cnx_owner -d prepare -f "$migration"
done
rm -rf .sqlx && mkdir .sqlx
touch src/lib.rs tests/e2e/main.rs
DATABASE_URL="postgres://cnx_owner@127.0.0.1:$port/prepare" SQLX_OFFLINE_DIR="$PWD/.sqlx" SQLX_OFFLINE=false \
  cargo check -p contextnexus --all-targets
echo "$(ls .sqlx | wc -l) queries prepared"
