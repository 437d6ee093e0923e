#include "weights/atomic_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

#include <sys/stat.h>

#include "base/error.h"

namespace foe {
namespace {

constexpr std::size_t kBufferBytes = 2 << 20;  // the system caches what is written at once in one huge page
constexpr int kMostLinks = 40;                 // Linux's own limit

// Returns standard output or error if it is this file, so that what is printed there is kept; otherwise -1.
int own_handle(const struct stat& there) {
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat own {};
    if (fstat(fd, &own) == 0 && own.st_dev == there.st_dev && own.st_ino == there.st_ino) return fd;
  }
  return -1;
}

// Only root can change the owner of a file, so a failure is ignored.
void keep_owner_and_mode(int fd, const struct stat& old) {
  if (fchown(fd, old.st_uid, old.st_gid) != 0 && fchown(fd, -1, old.st_gid) != 0) errno = 0;
  if (fchmod(fd, old.st_mode & 0777) != 0) errno = 0;
}

// Follows symbolic links, of which the last may name a file that does not exist yet.
std::string behind_links(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (const fs::path real = fs::canonical(path, error); !error) return real.string();
  fs::path place = path;
  for (int i = 0; i < kMostLinks && fs::is_symlink(place, error); ++i)
    place = place.parent_path() / fs::read_symlink(place, error);
  return place.string();
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path), written_(path) {
  struct stat there {};
  const bool exists = stat(path.c_str(), &there) == 0;
  if (const int own = exists ? own_handle(there) : -1; own >= 0) {
    std::fflush(nullptr);
    fd_ = fcntl(own, F_DUPFD_CLOEXEC, 0);
  } else if (exists && !S_ISREG(there.st_mode)) {
    fd_ = open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  } else {
    path_ = behind_links(path);
    written_ = path_ + ".tmp";
    unlink(written_.c_str());  // never write through a link that someone has put there
    fd_ = open(written_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, exists ? 0600 : 0644);
    if (fd_ >= 0 && exists) keep_owner_and_mode(fd_, there);
  }
  if (fd_ < 0) fail_with_reason(written_ == path_ ? "open" : "create");
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  if (written_ != path_) unlink(written_.c_str());
}

void AtomicFile::fail_with_reason(const char* action) const {
  fail("{}: expected to {} it, got: {}", written_, action, std::strerror(errno));
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
  if (written_ != path_) return put_in_place();
  if (close(std::exchange(fd_, -1)) != 0) fail_with_reason("close");
}

void AtomicFile::put_in_place() {
  if (fsync(fd_) != 0) fail_with_reason("sync");
  if (std::rename(written_.c_str(), path_.c_str()) != 0) fail_with_reason("rename");
  close(std::exchange(fd_, -1));
  // The new name is in the directory, which has to be synced, too.
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

void require_writable(const std::string& path) {
  struct stat there {};
  // Opening a pipe would wait for its reader, and closing it would end what is read.
  const bool is_device = stat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode) && !S_ISDIR(there.st_mode);
  if (!is_device)
    AtomicFile made_and_removed(path);
  else if (access(path.c_str(), W_OK) != 0)
    fail("{}: expected to open it, got: {}", path, std::strerror(errno));
}

}  // namespace foe
