#pragma once

#include <cstddef>
#include <string>

namespace foe {

// The whole of a regular file of at most `max_bytes`. Throws Error beginning with the path.
std::string read_text_file(const std::string& path, std::size_t max_bytes);

}  // namespace foe
