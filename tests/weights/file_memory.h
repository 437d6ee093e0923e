#pragma once

#include <cstddef>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace foe {

// Bytes of this process's memory that are behind files.
inline std::size_t file_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssFile:")) return std::stoul(line.substr(8)) * 1024;
  ADD_FAILURE() << "/proc/self/status: expected a line RssFile";
  return 0;
}

}  // namespace foe
