// Turns sums of integers into floats without an instruction for it.
#pragma once

#include <bit>
#include <cstdint>

namespace foe {

// With these bits added, an integer n between -2^22 and 2^22 has those of the float kFloatBase + n.
inline constexpr float kFloatBase = 0x1.8p23f;
inline constexpr auto kFloatOffset = std::bit_cast<std::int32_t>(kFloatBase);

}  // namespace foe
