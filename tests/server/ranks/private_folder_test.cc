#include "server/ranks/private_folder.h"

#include <cstdlib>
#include <filesystem>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::StartsWith;

// TMPDIR has another value as long as this lives.
class TmpDir {
 public:
  explicit TmpDir(const std::string& value) {
    if (const char* now = std::getenv("TMPDIR")) before_ = now;
    setenv("TMPDIR", value.c_str(), 1);
  }
  ~TmpDir() { before_ ? setenv("TMPDIR", before_->c_str(), 1) : unsetenv("TMPDIR"); }

 private:
  std::optional<std::string> before_;
};

TEST(PrivateFolder, IsWhereTmpdirSaysAndGoesAway) {
  const std::string place = testing::TempDir() + "foe_private_folder_test";
  std::filesystem::create_directories(place);
  const TmpDir given(place);
  std::filesystem::path folder;
  {
    const PrivateFolder mine;
    EXPECT_THAT(mine.socket_path(), StartsWith(place + "/foe-"));
    folder = std::filesystem::path(mine.socket_path()).parent_path();
    struct stat status {};
    ASSERT_EQ(stat(folder.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700u);
  }
  EXPECT_FALSE(std::filesystem::exists(folder));
  std::filesystem::remove_all(place);
}

// A batch system's may be longer than a socket's name, or be gone.
TEST(PrivateFolder, IsInTmpWhereTmpdirWillNotDo) {
  const std::string place = testing::TempDir() + std::string(95, 't');
  std::filesystem::create_directories(place);
  for (const std::string& value : {place, std::string("/nowhere/at/all"), std::string("/dev/null"), std::string()}) {
    const TmpDir given(value);
    const PrivateFolder mine;
    EXPECT_THAT(mine.socket_path(), StartsWith("/tmp/foe-")) << value;
    EXPECT_LT(mine.socket_path().size(), sizeof(sockaddr_un::sun_path));
  }
  std::filesystem::remove_all(place);
}

}  // namespace
}  // namespace foe
