#pragma once

#include <cstddef>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

namespace foe {

// Returns the bytes of this process's memory that are pages of files.
inline std::size_t file_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssFile:")) return std::stoul(line.substr(8)) * 1024;
  ADD_FAILURE() << "/proc/self/status: expected a line RssFile";
  return 0;
}

// Returns the bytes of mappings of files in `folder` for which huge pages were asked.
inline std::size_t huge_pages_asked(const std::string& folder) {
  std::ifstream maps("/proc/self/smaps");
  std::size_t bytes = 0, size = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find('-') < line.find(' '))  // begin-end rights offset device inode path
      inside = line.find(folder) != std::string::npos;
    else if (line.starts_with("Size:"))
      size = std::stoul(line.substr(5)) * 1024;
    else if (inside && line.starts_with("VmFlags:") && (line + ' ').find(" hg ") != std::string::npos)
      bytes += size;
  }
  return bytes;
}

}  // namespace foe
