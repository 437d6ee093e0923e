// Unicode normalisation forms (Unicode Standard Annex 15).
#pragma once

#include <string>
#include <string_view>

namespace foe {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` must be valid UTF-8. Linear in the text but for sorting runs of combining marks (n log n).
std::string normalize(std::string_view text, NormalForm form);

}  // namespace foe
