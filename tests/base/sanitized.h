// Whether this is a build with a sanitizer. There a test takes ten times as long, and what counts is that every path
// runs, not that every number is compared: loops that only repeat a path may be shorter.
#pragma once

namespace foe {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace foe
