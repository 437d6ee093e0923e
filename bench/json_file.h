// The file that a command writes its results to.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace foe {

enum class JsonStyle {
  kIndented,
  kLine,      // all on one line
  kAddedLine  // one more line after those that the file has, whoever wrote them
};

// Every function throws Error, naming the flag and the file, if the system refuses. An empty path stands for no file.
class JsonFile {
 public:
  // Makes sure that the file could be written now, before the work whose results it gets; changes nothing.
  JsonFile(std::string flag, std::string path, JsonStyle style = JsonStyle::kIndented);
  // Writes the whole file (weights/atomic_file.h), or adds to it.
  void write(const nlohmann::json& json) const;

 private:
  std::string flag_, path_;
  JsonStyle style_;
};

}  // namespace foe
