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

constexpr std::size_t kBufferBytes = 2 << 20;  // a huge page: what is written at once, the system keeps in one
constexpr int kMostLinks = 40;                 // as the system has it

// Standard output or error, if that is the file: what was printed there, and what will be, stays. Else -1.
int own_handle(const struct stat& there) {
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat own {};
    if (fstat(fd, &own) == 0 && own.st_dev == there.st_dev && own.st_ino == there.st_ino) return fd;
  }
  return -1;
}

// As far as the system lets us: only root can give files away.
void keep_owner_and_mode(int fd, const struct stat& old) {
  if (fchown(fd, old.st_uid, old.st_gid) != 0 && fchown(fd, -1, old.st_gid) != 0) errno = 0;
  if (fchmod(fd, old.st_mode & 0777) != 0) errno = 0;
}

// What a path names behind its symbolic links, the last of which may name nothing yet.
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
    unlink(written_.c_str());  // whatever it is: nothing is written through a link that stands there
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
