// Unicode normalisation forms (Unicode Standard Annex 15).
#pragma once

#include <string>
#include <string_view>

namespace foe {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Returns the normalised text. `text` must be valid UTF-8. The time is linear, except that runs of combining marks are
// sorted (n log n). Any thread may call this.
std::string normalize(std::string_view text, NormalForm form);

}  // namespace foe
