// Writes a file so that it has either its whole new contents or its old ones, even if the process or the machine is
// killed. It is written as PATH.tmp, synced, and renamed to PATH. There may be one writer per path at a time; a
// leftover PATH.tmp is replaced.
//
// Only a regular file is replaced. It keeps its mode and, if the system allows that, its owner. A symbolic link stays,
// and the file that it names is replaced. A device (such as /dev/null), a pipe, or this process's standard output or
// error is written to directly.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Every function throws Error, naming the file and the system's reason, if the system refuses. Without commit() the
// destructor removes PATH.tmp.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  // Puts the file in its place, and returns when it would survive a power cut. To be called once, at the end.
  void commit();

 private:
  void flush();
  void put_in_place();
  [[noreturn]] void fail_with_reason(const char* action) const;

  std::string path_;     // the file that is replaced, after all links have been followed
  std::string written_;  // PATH.tmp, or path_ if that is written to directly
  int fd_ = -1;
  std::vector<std::byte> buffer_;
};

// Writes a whole file like AtomicFile. Throws Error in the same cases.
void write_text_file(const std::string& path, std::string_view text);

// Throws Error if the system would not let this process write to the file now, and changes nothing: for commands that
// write after minutes of work.
void require_writable(const std::string& path);

}  // namespace foe
