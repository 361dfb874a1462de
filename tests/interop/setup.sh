#!/bin/sh
# Installs the JavaScript clients that the end-to-end tests drive, and what the README's snippets need. Does nothing when they are
# there and the lock files have not changed.
set -eu
cd "$(dirname "$0")"
for directory in . snippets; do
  stamp=$directory/node_modules/.installed
  if [ -f "$stamp" ] && cmp -s "$directory/package-lock.json" "$stamp"; then
    continue
  fi
  # @y/y names Node 22 as its engine; what is used of it here runs on Node 20 (see the tests).
  (cd "$directory" && npm ci --no-audit --no-fund --loglevel=error)
  cp "$directory/package-lock.json" "$stamp"
done
