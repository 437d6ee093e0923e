#!/usr/bin/env bash
# Runs a Python test in an environment that `make test` makes: tests/python.sh SCRIPT [ARGUMENT...]
# It is build/venv, or build/$FOE_VENV.
set -euo pipefail
name=${FOE_VENV:-venv}
venv=$(dirname "$0")/../build/$name
if [[ ! -e $venv/installed.txt ]]; then
  echo "SKIPPED: no Python environment in build/$name; 'make test' makes it when it can reach PyPI"
  exit 77
fi
exec "$venv/bin/python" "$@"
