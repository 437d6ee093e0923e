// Whether this build has a sanitizer. With one, tests take ten times as long, and it matters that every path of the
// code runs, not that every number is compared; so loops that only repeat a path may be shorter.
#pragma once

namespace foe {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace foe
