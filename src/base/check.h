// FOE_CHECK(condition, "format {}", values...) guards invariants of our own code. If the condition is false, it prints
// the place, the condition and the values, and aborts. It is on in every build, because a wrong index into the weights
// costs more than a predictable branch. Bad input is an Error (error.h) instead.
#pragma once

#include <string>

#include <fmt/core.h>

namespace foe {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace foe

#define FOE_CHECK(condition, ...)                                                      \
  do {                                                                                 \
    if (!(condition)) [[unlikely]]                                                     \
      ::foe::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
