#!/usr/bin/env bash
# Runs a Python test in the environment that `make test` makes: tests/python.sh SCRIPT [ARGUMENT...]
set -euo pipefail
venv=$(dirname "$0")/../build/venv
if [[ ! -e $venv/installed.txt ]]; then
  echo "SKIPPED: no Python environment in build/venv; 'make test' makes it when it can reach PyPI"
  exit 77
fi
exec "$venv/bin/python" "$@"
