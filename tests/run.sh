#!/usr/bin/env bash
# Every test, with real PostgreSQL, Redis, browsers and JavaScript clients. Installs what is missing (Debian packages as root,
# cargo-nextest and cargo-deny, npm packages); starts what the tests need and stops it again.
#
#   tests/run.sh                 everything
#   tests/run.sh -E 'test(ws_)'  arguments go to cargo-nextest
#   CNX_LONG=1 tests/run.sh      the long forms (hours)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

missing=()
[ -x /usr/lib/postgresql/15/bin/initdb ] || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v chromium >/dev/null || missing+=(chromium)
command -v node >/dev/null || missing+=(nodejs npm)
command -v cc >/dev/null || missing+=(build-essential)
if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  if [ "$(id -u)" != 0 ]; then
    echo "missing: ${missing[*]}; install them, or run this once as root" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
fi

for tool in nextest deny; do
  if ! cargo "$tool" --version >/dev/null 2>&1; then
    say "installing cargo-$tool (once; some minutes)"
    cargo install --locked --quiet "cargo-$tool"
  fi
done

export SQLX_OFFLINE=true
if [ $# -eq 0 ]; then
  say "format"
  cargo fmt --all --check
  say "lints"
  cargo clippy --workspace --all-targets --quiet -- -D warnings
  say "licences, sources and duplicate versions"
  cargo deny --log-level error check bans licenses sources
fi

say "JavaScript clients"
tests/interop/setup.sh
(cd tests/interop/snippets && npm ci --no-audit --no-fund --loglevel=error)
(cd tests/browser && npm ci --no-audit --no-fund --loglevel=error)

if [ $# -eq 0 ]; then
  say "the browser workspace"
  (cd web && npm ci --no-audit --no-fund --loglevel=error && npm test --silent)
  web/check-dist.sh
fi

say "tests"
cargo nextest run --workspace "$@"
