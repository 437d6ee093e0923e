#!/usr/bin/env bash
# Makes a Python environment, once: tools/venv.sh FOLDER REQUIREMENTS. With CI=true it must succeed; elsewhere a machine
# without PyPI runs the other tests, and those that need Python say that they were skipped.
set -euo pipefail
folder=$1 requirements=$2
cmp -s "$requirements" "$folder/installed.txt" && exit 0

echo "venv: installing $requirements into $folder"
rm -rf "$folder"
# Not compiled in advance: the packages have many modules that no test imports, and that would take as long as the rest.
if python3 -m venv "$folder" &&
  "$folder/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "$requirements"; then
  cp "$requirements" "$folder/installed.txt"
  exit 0
fi
echo "venv: could not install $requirements from PyPI; the tests that need it will be SKIPPED" >&2
[[ ${CI:-} != true ]]
