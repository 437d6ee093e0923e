// Bad input (a file, a flag, a request, a configuration) throws an Error that says what was expected and what was
// found. A broken invariant of our own is a bug, for which there is FOE_CHECK (check.h).
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace foe {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// fail("hidden_size must be positive, got {}", n) throws an Error with that text.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace foe
