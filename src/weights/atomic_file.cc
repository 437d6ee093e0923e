#include "weights/atomic_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

#include "base/error.h"

namespace foe {
namespace {

constexpr std::size_t kBufferBytes = 2 << 20;  // a huge page: what is written at once, the system keeps in one

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_with_reason("create");
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void AtomicFile::fail_with_reason(const char* action) const {
  fail("{}: expected to {} it, got: {}", temporary_, action, std::strerror(errno));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), kBufferBytes - buffer_.size()));
    buffer_.insert(buffer_.end(), part.begin(), part.end());
    bytes = bytes.subspan(part.size());
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void AtomicFile::flush() {
  std::span<const std::byte> rest = buffer_;
  while (!rest.empty()) {
    const ssize_t written = ::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with_reason("write");
    rest = rest.subspan(static_cast<std::size_t>(written));
  }
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (fsync(fd_) != 0) fail_with_reason("sync");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with_reason("rename");
  close(std::exchange(fd_, -1));
  // The rename is in the directory, which has to reach the disk too.
  const std::string directory = (std::filesystem::path(path_).parent_path() / ".").string();
  const int directory_fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd < 0) fail("{}: expected to open it, got: {}", directory, std::strerror(errno));
  const int synced = fsync(directory_fd);
  const int reason = errno;
  close(directory_fd);
  if (synced != 0) fail("{}: expected to sync it, got: {}", directory, std::strerror(reason));
}

void write_text_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace foe
