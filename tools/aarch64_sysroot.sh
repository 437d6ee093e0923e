#!/usr/bin/env bash
# Fetches what foe is linked with, for 64-bit ARM, from Debian into a folder of its own, and writes a toolchain file: then
# the whole program is compiled by the cross compiler, and runs in the emulator. This machine's packages stay as they are.
#
#   tools/aarch64_sysroot.sh build-arm/sysroot
#   cmake -S . -B build-arm -G Ninja -DCMAKE_TOOLCHAIN_FILE=build-arm/sysroot/toolchain.cmake \
#     -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -DFOE_TESTS=OFF -DFOE_BENCH=OFF
#   cmake --build build-arm --target foe
#   qemu-aarch64 -L build-arm/sysroot/root build-arm/foe verify RECEIPTS MODEL
#
# Needs g++-aarch64-linux-gnu and qemu-user, and root for apt-get; the folder takes some hundred MB.
set -euo pipefail
[ $# = 1 ] || { echo "expected a folder, got $# arguments" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
apt=$dir/apt
mkdir -p "$apt"/{lists/partial,cache/archives/partial}
: > "$apt/status" # nothing is installed, so all that is needed is fetched
options=(-o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
  -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o APT::Sandbox::User=root)
apt-get "${options[@]}" update
apt-get "${options[@]}" --yes --download-only install libopenmpi-dev libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev \
  libboost-dev libhwy-dev libhwloc-dev libpcre2-dev libutf8proc-dev libtomlplusplus-dev prometheus-cpp-dev
mkdir -p "$dir/root"
for package in "$apt"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$dir/root"; done

cat > "$dir/toolchain.cmake" <<END
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_SYSROOT $dir/root)
set(CMAKE_FIND_ROOT_PATH $dir/root)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
foreach(kind LIBRARY INCLUDE PACKAGE)
  set(CMAKE_FIND_ROOT_PATH_MODE_\${kind} ONLY)
endforeach()
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(ENV{PKG_CONFIG_SYSROOT_DIR} $dir/root)
set(ENV{PKG_CONFIG_LIBDIR} $dir/root/usr/lib/aarch64-linux-gnu/pkgconfig:$dir/root/usr/share/pkgconfig)
set(MPI_SKIP_COMPILER_WRAPPER ON)  # it is this machine's
set(MPI_C_HEADER_DIR $dir/root/usr/lib/aarch64-linux-gnu/openmpi/include)
set(MPI_C_LIB_NAMES mpi)
set(MPI_mpi_LIBRARY $dir/root/usr/lib/aarch64-linux-gnu/libmpi.so.40)
END
echo "$dir/toolchain.cmake"
