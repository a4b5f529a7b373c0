#!/usr/bin/env bash
# Installs the peers into .local/peers: Python's libraries from PyPI, Bento built as a Go module (Go 1.24 or newer).
set -euo pipefail
cd "$(dirname "$0")"
out="$PWD/../../.local/peers"
mkdir -p "$out"
if command -v python3 > /dev/null; then
  python3 -m venv "$out/python"
  "$out/python/bin/pip" install --quiet --disable-pip-version-check -r python/requirements.txt
else
  echo "no python3: the Python stack is not measured"
fi
if command -v go > /dev/null; then
  cp bento/go.mod bento/main.go "$out/"
  (cd "$out" && go mod tidy && go build -o bento .)
else
  echo "no go: Bento is not measured"
fi
