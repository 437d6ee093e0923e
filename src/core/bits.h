// The version of the engine's bits.
#pragma once

namespace foe {

// Grows by one whenever a change makes some model's logits, or the token that is chosen from logits, differ in a bit
// from what they were before: another order of a sum, another rounding, another way to draw. Receipts
// (server/api/receipt.h) have it, so that an answer is not held to be forged because it was made by another version.
// The receipt in tests/golden/receipt shows such a change.
inline constexpr int kBitsVersion = 1;

}  // namespace foe
