#include "server/ranks/private_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include <sys/un.h>

#include "base/error.h"

namespace foe {
namespace {

constexpr const char* kSocketName = "/link";
constexpr std::size_t kLongestName = sizeof(sockaddr_un::sun_path) - 1;

}  // namespace

PrivateFolder::PrivateFolder() {
  std::vector<std::string> places;
  if (const char* given = std::getenv("TMPDIR"); given && *given) places.push_back(given);
  places.push_back("/tmp");
  std::string reasons;
  for (const std::string& place : places) {
    path_ = place + "/foe-XXXXXX";
    const std::size_t length = path_.size() + std::strlen(kSocketName);
    if (length <= kLongestName && mkdtemp(path_.data())) return;
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", place,
                           length > kLongestName ? fmt::format("a socket's name there would have {} bytes, but at most"
                                                               " {} are allowed",
                                                               length, kLongestName)
                                                 : std::strerror(errno));
  }
  fail("cannot make a folder for the ranks' socket in $TMPDIR or /tmp: {}; set TMPDIR to a folder that can be written",
       reasons);
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string PrivateFolder::socket_path() const {
  return path_ + kSocketName;
}

}  // namespace foe
