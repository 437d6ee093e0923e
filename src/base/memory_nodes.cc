#include "base/memory_nodes.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <sched.h>

#include "base/error.h"

namespace foe {
namespace {

constexpr int kMostProcessors = 1 << 16;

std::vector<int> usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  std::vector<int> usable;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) usable.push_back(cpu);
  return usable;
}

// Takes a number from the beginning of `list`, or -1.
int take_number(std::string_view& list) {
  int number = -1;
  const auto [end, error] = std::from_chars(list.data(), list.data() + list.size(), number);
  if (error != std::errc{} || number < 0 || number >= kMostProcessors) return -1;
  list.remove_prefix(end - list.data());
  return number;
}

// Files of the kernel do not know their size. The list of a machine has one line.
std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) && !file.eof()) fail("{}: expected a readable file, got none", path.string());
  return line;
}

bool take(std::string_view& list, char c) {
  if (!list.starts_with(c)) return false;
  list.remove_prefix(1);
  return true;
}

}  // namespace

std::vector<int> parse_processor_list(std::string_view list) {
  std::vector<int> numbers;
  std::string_view rest = list.substr(0, list.find_last_not_of(" \n") + 1);
  while (!rest.empty()) {
    const int first = take_number(rest), last = take(rest, '-') ? take_number(rest) : first;
    if (first < 0 || last < first || (!rest.empty() && (!take(rest, ',') || rest.empty())))
      fail("expected a list of processors as 0-3,8, got {}", list.substr(0, 200));
    for (int number = first; number <= last; ++number) numbers.push_back(number);
  }
  return numbers;
}

std::vector<std::vector<int>> memory_nodes(const std::string& folder, const std::vector<int>& usable) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(folder)) return {usable};
  std::map<int, std::vector<int>> nodes;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    std::string_view rest = name;
    if (!rest.starts_with("node")) continue;
    rest.remove_prefix(4);
    const int number = take_number(rest);
    if (number < 0 || !rest.empty()) continue;
    for (const int cpu : parse_processor_list(first_line(entry.path() / "cpulist")))
      if (std::ranges::find(usable, cpu) != usable.end()) nodes[number].push_back(cpu);
  }
  std::vector<std::vector<int>> lists;
  for (auto& [number, processors] : nodes) lists.push_back(std::move(processors));
  if (lists.empty()) lists.push_back(usable);
  return lists;
}

std::vector<std::vector<int>> memory_nodes(const std::string& folder) {
  return memory_nodes(folder, usable_processors());
}

}  // namespace foe
