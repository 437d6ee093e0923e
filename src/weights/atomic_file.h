// A file that is there with its whole contents or not at all, whatever kills the process or the machine: written beside
// its place as PATH.tmp, synced, renamed over it. One writer per path at a time; a leftover .tmp is replaced.
//
// Only a regular file is replaced, and keeps its mode and, where the system lets us, its owner. A symbolic link stays,
// and the file that it names is replaced. What is there and no file (a device such as /dev/null, a pipe), and what is
// this process's standard output or error, is written to as it is.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Every function throws Error naming the file and the system's reason. Without commit() the destructor removes the
// .tmp.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  // Once, last: puts the file in its place, and returns when it would survive a power cut.
  void commit();

 private:
  void flush();
  void put_in_place();
  [[noreturn]] void fail_with_reason(const char* action) const;

  std::string path_;     // of the file that is replaced, behind all links
  std::string written_;  // the .tmp, or path_ where that is written to as it is
  int fd_ = -1;
  std::vector<std::byte> buffer_;
};

void write_text_file(const std::string& path, std::string_view text);

}  // namespace foe
