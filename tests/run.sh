#!/usr/bin/env bash
# Every test, with real PostgreSQL, Redis, browsers and JavaScript and Python clients. Installs what is missing and says so, a line for
# each step (Debian packages as root, cargo-nextest and cargo-deny, npm and pip packages); starts what the tests need and stops it again.
#
#   tests/run.sh                 everything
#   tests/run.sh -E 'test(ws_)'  arguments go to cargo-nextest
#   CNX_LONG=1 tests/run.sh      the long forms (hours)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

# One step of an installation: what it installs and why, its output only when it fails, and how long it took.
install() {
  local what=$1 began=$SECONDS output
  shift
  printf '   %s … ' "$what"
  if output=$("$@" 2>&1); then
    printf '%s s\n' "$((SECONDS - began))"
  else
    printf 'failed\n%s\n' "$output" >&2
    exit 1
  fi
}

# Debian packages: what is looked for, the package it is in, and why.
packages=()
need() {
  local package=$1 why=$2
  shift 2
  "$@" >/dev/null 2>&1 && return
  packages+=("$package")
  printf '   missing: %s (%s)\n' "$package" "$why"
}
has_postgresql() { ls /usr/lib/postgresql/*/bin/initdb; }
has_venv() { python3 -c 'import ensurepip, venv'; }

say "what the tests need"
need build-essential "compiles the C parts of dependencies" command -v cc
need make "builds the allocator (jemalloc)" command -v make
need postgresql "the database of every test" has_postgresql
need redis-server "connects the nodes in the tests with several" command -v redis-server
need chromium "runs the workspace and the README's snippets" command -v chromium
need nodejs "runs the JavaScript clients" command -v node
need npm "installs the JavaScript clients" command -v npm
need python3-venv "runs and installs pycrdt" has_venv
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "missing: ${packages[*]}; install them, or run this once as root" >&2
    exit 1
  fi
  install "apt-get update, to find them" apt-get update -qq
  for package in "${packages[@]}"; do
    install "apt-get install $package" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"
  done
fi
cargo nextest --version >/dev/null 2>&1 ||
  install "cargo install cargo-nextest, which runs the tests (once; built from source, 5 to 15 minutes)" cargo install --locked --quiet cargo-nextest
cargo deny --version >/dev/null 2>&1 ||
  install "cargo install cargo-deny, which checks licences (once; built from source, 5 to 15 minutes)" cargo install --locked --quiet cargo-deny
packages_of() { (cd "$1" && npm ci --no-audit --no-fund --loglevel=error); }
tests/interop/setup.sh | sed 's/^/   /'
install "npm: Playwright's driver for tests/browser" packages_of tests/browser
echo "   all there"

export SQLX_OFFLINE=true
if [ $# -eq 0 ]; then
  say "format"
  cargo fmt --all --check
  say "lints"
  cargo clippy --workspace --all-targets --quiet -- -D warnings
  say "licences, sources and duplicate versions"
  cargo deny --log-level error check bans licenses sources

  say "the browser workspace"
  install "npm: what web/ is built with" packages_of web
  (cd web && npm test --silent)
  web/check-dist.sh
fi

say "tests"
cargo nextest run --workspace "$@"
