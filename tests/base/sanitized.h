// Whether this build has a sanitizer (tests/CMakeLists.txt). With one, tests take ten times as long, and it matters
// that every path of the code runs, not that every number is compared; so loops that only repeat a path may be shorter.
#pragma once

namespace foe {

#ifdef FOE_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace foe
