#!/usr/bin/env bash
# Installs the Debian packages that are missing, and does nothing (in milliseconds) when none is.
#
#   tools/setup.sh run     what building and running foe needs
#   tools/setup.sh test    and the tests
#   tools/setup.sh dev     and the fuzzers, the formatter, a compiler cache, a browser and an emulated ARM
set -euo pipefail

packages=(g++ cmake ninja-build pkgconf openmpi-bin libopenmpi-dev libhwloc-dev libhwy-dev libcli11-dev
  nlohmann-json3-dev libboost-dev libtomlplusplus-dev libpcre2-dev libutf8proc-dev libspdlog-dev libfmt-dev
  prometheus-cpp-dev curl jq bsdextrautils)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev python3 python3-venv iproute2)
dev_packages=(clang-14 libclang-rt-14-dev clang-format-14 ccache chromium g++-aarch64-linux-gnu qemu-user)

fail() {
  echo "setup: $*" >&2
  exit 1
}

case ${1:-} in
run) ;;
test) packages+=("${test_packages[@]}") ;;
dev) packages+=("${test_packages[@]}" "${dev_packages[@]}") ;;
*) sed -n '2,6s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac

command -v dpkg-query >/dev/null || fail "this is not a Debian system; install the equivalents of: ${packages[*]}"
installed=$(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p')
missing=()
for package in "${packages[@]}"; do
  [[ $'\n'$installed$'\n' == *$'\n'"$package"$'\n'* ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || fail "not root and no sudo; as root, run: apt-get install ${missing[*]}"
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
apt_get=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3)
"${apt_get[@]}" update || fail "apt-get update failed; is the network up?"
"${apt_get[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null || fail "apt-get could not install ${missing[*]}"
