#!/bin/sh
# Installs the JavaScript clients that the end-to-end tests drive. Does nothing when they are there and the lock file has not changed.
set -eu
cd "$(dirname "$0")"
stamp=node_modules/.installed
if [ -f "$stamp" ] && cmp -s package-lock.json "$stamp"; then
  exit 0
fi
# @y/y names Node 22 as its engine; what is used of it here runs on Node 20 (see the tests).
npm ci --no-audit --no-fund --loglevel=error
cp package-lock.json "$stamp"
