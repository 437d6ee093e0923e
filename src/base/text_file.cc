#include "base/text_file.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/error.h"

namespace foe {

std::string read_text_file(const std::string& path, std::size_t max_bytes) {
  std::error_code status;
  if (!std::filesystem::is_regular_file(path, status))
    fail("{}: expected a file, got{} {}", path, status ? ":" : "", status ? status.message() : "something else");
  const auto size = std::filesystem::file_size(path, status);
  if (status) fail("{}: expected a readable file, got: {}", path, status.message());
  if (size > max_bytes) fail("{}: expected at most {} bytes, got {}", path, max_bytes, size);
  std::string text(static_cast<std::size_t>(size), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file) fail("{}: expected {} readable bytes, got {}", path, size, file.gcount());
  return text;
}

}  // namespace foe
