#include "bench/json_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "base/error.h"
#include "weights/atomic_file.h"

namespace foe {
namespace {

[[noreturn]] void fail_to_append(const std::string& path) {
  fail("{}: expected to append to it, got: {}", path, std::strerror(errno));
}

// An existing file is appended to, wherever it is; only a new one needs a folder that can be written.
void require_appendable(const std::string& path) {
  struct stat there {};
  if (stat(path.c_str(), &there) != 0 || S_ISDIR(there.st_mode)) return require_writable(path);
  if (access(path.c_str(), R_OK | W_OK) != 0) fail_to_append(path);
}

// Adds a line, in one piece if the system takes it so: others may add lines at the same time.
void append_line(const std::string& path, std::string line) {
  const int fd = open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
  struct stat there {};
  if (fd < 0 || fstat(fd, &there) != 0) fail_to_append(path);
  char last = '\n';  // vLLM's files do not end with one
  if (S_ISREG(there.st_mode) && there.st_size > 0 && pread(fd, &last, 1, there.st_size - 1) == 1 && last != '\n')
    line.insert(0, "\n");
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = ::write(fd, rest.data(), rest.size());
    if (written < 0 && errno != EINTR) break;
    if (written > 0) rest.remove_prefix(static_cast<std::size_t>(written));
  }
  const int reason = errno;
  const bool closed = close(fd) == 0;
  if (!rest.empty()) errno = reason;
  if (!rest.empty() || !closed) fail_to_append(path);
}

}  // namespace

JsonFile::JsonFile(std::string flag, std::string path, JsonStyle style)
    : flag_(std::move(flag)), path_(std::move(path)), style_(style) {
  if (path_.empty()) return;
  try {
    style_ == JsonStyle::kAddedLine ? require_appendable(path_) : require_writable(path_);
  } catch (const Error& error) {
    fail("{}: {}", flag_, error.what());
  }
}

void JsonFile::write(const nlohmann::json& json) const {
  if (path_.empty()) return;
  // The values of flags need not be UTF-8.
  const int indent = style_ == JsonStyle::kIndented ? 1 : -1;
  const std::string text = json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  try {
    style_ == JsonStyle::kAddedLine ? append_line(path_, text) : write_text_file(path_, text);
  } catch (const Error& error) {
    fail("{}: {}", flag_, error.what());
  }
}

}  // namespace foe
