#include "tokenizer/normal_form.h"

#include <algorithm>
#include <utf8proc.h>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace foe {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

int options_of(NormalForm form) {
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  return UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatible ? UTF8PROC_COMPAT : 0);
}

CodePoints decompose(std::string_view text, int options) {
  constexpr std::size_t kLongestDecomposition = 18;  // that of U+FDFA
  CodePoints points(text.size() + kLongestDecomposition);
  std::size_t size = 0;
  int boundary = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = read_utf8(text, i);
    FOE_CHECK(step.kind == Utf8Step::kValid, "byte {}", i);
    i += step.size;
    if (points.size() < size + kLongestDecomposition) points.resize(2 * points.size());
    const auto added = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.code), points.data() + size,
                                               static_cast<utf8proc_ssize_t>(points.size() - size),
                                               static_cast<utf8proc_option_t>(options), &boundary);
    FOE_CHECK(added >= 0 && static_cast<std::size_t>(added) <= kLongestDecomposition, "{}", added);
    size += static_cast<std::size_t>(added);
  }
  points.resize(size);
  return points;
}

// Unicode's canonical ordering algorithm. utf8proc_map has it, too, but takes quadratic time in the length of a run of
// marks: hours for a megabyte of them.
void order_marks(CodePoints& points) {
  const auto combining_class = [](utf8proc_int32_t point) { return utf8proc_get_property(point)->combining_class; };
  for (auto begin = points.begin(); begin != points.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, points.end(), [&](auto point) { return combining_class(point) == 0; });
    std::stable_sort(begin, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (ascii) return std::string(text);
  const int options = options_of(form);
  CodePoints points = decompose(text, options);
  order_marks(points);
  // This composes in place, if the form is a composed one.
  const utf8proc_ssize_t size = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                                         static_cast<utf8proc_option_t>(options));
  FOE_CHECK(size >= 0, "{}", size);
  std::string result;
  result.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < size; ++i) {
    append_utf8(result, static_cast<char32_t>(points[static_cast<std::size_t>(i)]));
  }
  return result;
}

}  // namespace foe
