#pragma once

#include <cstddef>
#include <string>

namespace foe {

// Returns the contents of a file. Throws Error, beginning with the path, if it cannot be read, is not a regular file or
// has more than `max_bytes`.
std::string read_text_file(const std::string& path, std::size_t max_bytes);

}  // namespace foe
