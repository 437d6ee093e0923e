# The libraries that the kernels and their tests need, for any machine's compiler: headers, and GoogleTest's sources.
add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
add_library(PkgConfig::HWY INTERFACE IMPORTED)  # its library only chooses between instruction sets
add_library(fmt::fmt INTERFACE IMPORTED)
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY)
add_subdirectory(/usr/src/googletest googletest EXCLUDE_FROM_ALL)
