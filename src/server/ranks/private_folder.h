// A folder that only we may enter, for the name of a socket; removed at the end.
#pragma once

#include <string>

namespace foe {

class PrivateFolder {
 public:
  // In the folder that TMPDIR names or, where that is not there, cannot be written to, or has too long a name for a
  // socket in it, in /tmp. Throws Error saying why neither will do.
  PrivateFolder();
  ~PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  // Of the socket.
  std::string socket_path() const;

 private:
  std::string path_;
};

}  // namespace foe
