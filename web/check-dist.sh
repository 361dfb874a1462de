#!/bin/sh
# Verifies that the committed bundle (web/dist) is what the committed sources build. Needs Node 20.19 or newer and the package registry.
set -eu
cd "$(dirname "$0")"

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
git archive HEAD . | tar -x -C "$fresh"

cd "$fresh"
npm ci --silent
npm run --silent check
npm run --silent build -- --outDir fresh --logLevel warn
if diff -r dist fresh; then
    echo "web/dist is what the sources build"
else
    echo "web/dist differs from a fresh build: run 'npm ci && npm run build' in web/ and commit web/dist" >&2
    exit 1
fi
