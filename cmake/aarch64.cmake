# Compiles for 64-bit ARM with Debian's cross compiler, and runs what is compiled in an emulator.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# Last of all, for libraries that are headers only (headers_only.cmake): no foreign architecture has to be set up for apt.
set(CMAKE_CXX_FLAGS_INIT "-idirafter /usr/include")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
# The preset leaves out death tests, which start the program anew without the emulator, and those of attention's bits over
# chunks, threads and spans, which pass and take five minutes there.
