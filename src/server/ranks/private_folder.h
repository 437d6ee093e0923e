// A folder for a socket that only this user may enter. The destructor removes it.
#pragma once

#include <string>

namespace foe {

class PrivateFolder {
 public:
  // Makes the folder in the folder that TMPDIR names or, if that does not exist, cannot be written to or has too long a
  // name for a socket, in /tmp. Throws Error with the reasons if neither is possible.
  PrivateFolder();
  ~PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  // Returns the path for the socket, which is not made here.
  std::string socket_path() const;

 private:
  std::string path_;
};

}  // namespace foe
