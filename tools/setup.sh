#!/usr/bin/env bash
# Installs the Debian packages that are missing, and does nothing (in milliseconds) when none is.
#
#   tools/setup.sh run     what building and running foe needs
#   tools/setup.sh test    and the tests
#   tools/setup.sh dev     and the fuzzers, the formatter, a compiler cache, a browser and an emulated ARM
set -euo pipefail

packages=(g++ cmake ninja-build pkgconf openmpi-bin libopenmpi-dev libhwloc-dev libhwy-dev libcli11-dev
  nlohmann-json3-dev libboost-dev libtomlplusplus-dev libpcre2-dev libutf8proc-dev libspdlog-dev libfmt-dev
  prometheus-cpp-dev curl jq unzip bsdextrautils)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev python3 python3-venv iproute2)
dev_packages=(clang-14 libclang-rt-14-dev clang-format-14 ccache chromium g++-aarch64-linux-gnu qemu-user)

fail() {
  echo "setup: $*" >&2
  exit 1
}

# Reads what apt-get says, and says how far it is: on a terminal in one line that changes, else now and then.
progress() {
  local line total=? unpacked=0 set_up=0 before="" after=$'\n' every=50
  [[ ! -t 1 ]] || before=$'\r' after="" every=1
  while IFS= read -r line; do
    case $line in
    *" newly installed"*) [[ $line =~ ([0-9]+)\ newly ]] && total=${BASH_REMATCH[1]} ;;
    "Unpacking "*) unpacked=$((unpacked + 1)) ;;
    "Setting up "*) set_up=$((set_up + 1)) ;;
    *) continue ;;
    esac
    [[ $(((unpacked + set_up) % every)) -ne 0 ]] ||
      printf '%ssetup: %d of %s packages unpacked, %d set up%s' "$before" $unpacked "$total" $set_up "$after"
  done
  [[ ! -t 1 ]] || echo
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
echo "setup: installing ${missing[*]} and what they need; a minute or two, by the network"
apt_get=("${as_root[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3)
"${apt_get[@]}" -qq update || fail "apt-get update failed; is the network up?"
"${apt_get[@]}" -q install -y --no-install-recommends "${missing[@]}" | progress || fail "apt-get could not install ${missing[*]}"
