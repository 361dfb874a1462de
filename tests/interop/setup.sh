#!/bin/sh
# Installs the JavaScript and Python clients that the end-to-end tests drive, and what the README's snippets need. Does nothing when
# they are there and the lists of what to install have not changed.
set -eu
cd "$(dirname "$0")"
for directory in . snippets; do
  stamp=$directory/node_modules/.installed
  if [ -f "$stamp" ] && cmp -s "$directory/package-lock.json" "$stamp"; then
    continue
  fi
  case $directory in
    .) echo "npm: the JavaScript clients that the tests drive, into tests/interop/node_modules" ;;
    *) echo "npm: what the README's snippets need, into tests/interop/$directory/node_modules" ;;
  esac
  # @y/y names Node 22 as its engine; what is used of it here runs on Node 20 (see the tests).
  (cd "$directory" && npm ci --no-audit --no-fund --loglevel=error >/dev/null)
  cp "$directory/package-lock.json" "$stamp"
done

stamp=.venv/.installed
if ! [ -f "$stamp" ] || ! cmp -s requirements.txt "$stamp"; then
  echo "pip: the Python client that the tests drive (pycrdt), into tests/interop/.venv"
  rm -rf .venv
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
  cp requirements.txt "$stamp"
fi
