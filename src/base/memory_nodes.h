// Which processors are near which memory (NUMA).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Returns the numbers of a list as the kernel writes it: "0-3,8" is 0, 1, 2, 3, 8. Throws Error if it is not such a
// list or has numbers of 2^16 and more.
std::vector<int> parse_processor_list(std::string_view list);

// Returns the processors that this process may run on (its affinity mask), in ascending order, for each memory node
// that has some. They are all of one node if `folder`, where the kernel lists its nodes, does not exist. Throws Error
// if a list in it cannot be read.
std::vector<std::vector<int>> memory_nodes(const std::string& folder = "/sys/devices/system/node");

// The same, given the processors that this process may run on. A processor that no node has is left out.
std::vector<std::vector<int>> memory_nodes(const std::string& folder, const std::vector<int>& usable);

}  // namespace foe
