// The sum over blocks of heads, or over the streams of a federated model, that ends a part of a pass: some tokens at a
// time, so that the terms stay in a cache, and over the ranks that share the streams.
#pragma once

#include <algorithm>
#include <type_traits>

#include "base/check.h"
#include "train/model.h"
#include "train/rows.h"

namespace foe::train {

// x *= factor
template <typename T>
void scale_all(T* x, double factor, std::size_t n) {
  if (factor == 1) return;
  for (std::size_t i = 0; i < n; ++i) x[i] *= static_cast<T>(factor);
}

// Which ranks need a sum: all, or the one that owns the shard's ends.
enum class SumAt { kAllRanks, kOwner };

// Adds the partial sums of all ranks into the first.
template <typename T>
void sum_over_peers(Activations<T>& a, SumAt where, T* partials, std::size_t count) {
  if constexpr (std::is_same_v<T, float>)
    where == SumAt::kOwner ? a.peers->sum_at_owner(partials, count) : a.peers->sum(partials, count);
  else
    FOE_CHECK(false, "peers exchange {} numbers in f32", count);
}

// Replaces numbers that the owner of the shard's ends alone has.
template <typename T>
void spread_from_owner(Activations<T>& a, T* values, std::size_t count) {
  if (!a.peers) return;
  if constexpr (std::is_same_v<T, float>) a.peers->spread({values, count});
}

// y_TD += scale * (factor * sum over blocks b of their terms). write(b, t, rows, term) writes those of the tokens [t, t
// + rows). On ranks that do not need the sum, y_TD is undefined.
template <typename T, typename Write>
void add_block_sum(Activations<T>& a, double factor, T scale, SumAt where, T* y_TD, const Write& write) {
  const std::size_t hidden = a.dims.hidden, stride = kTermRows * hidden, all = a.span.tokens() * hidden;
  const auto add = [&](T* sum, std::size_t at, std::size_t n) {
    scale_all(sum, factor, n);
    add_scaled(y_TD + at, sum, scale, n);
  };
  for (int t = 0; t < a.span.tokens(); t += kTermRows) {
    const int rows = std::min(kTermRows, a.span.tokens() - t);
    for (int b = 0; b < a.block_sum.terms(); ++b) write(b, t, rows, a.terms.data() + b * stride);
    a.block_sum.add(a.terms.data(), stride, rows * hidden);
    if (!a.peers) {
      add(a.terms.data(), t * hidden, rows * hidden);
      continue;
    }
    for (int i = 0; i < a.block_sum.partials(); ++i)
      std::copy_n(a.terms.data() + a.block_sum.place(i) * stride, rows * hidden,
                  a.partials_TD.data() + i * all + t * hidden);
  }
  if (!a.peers) return;
  sum_over_peers(a, where, a.partials_TD.data(), all);
  add(a.partials_TD.data(), 0, all);
}

}  // namespace foe::train
