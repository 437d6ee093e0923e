// How the panels of products are divided among threads: into runs of consecutive panels. A thread that has finished a
// run takes the next one. The products stand one after the other and are cut by the time that their panels take.
//
// Half of it becomes one run for each thread, then half of what is left, and so on, until runs would become shorter
// than is worth taking them; what is left then is cut into the shortest ones. Long runs come first because memory is
// faster the longer a thread reads on, and short ones last so that threads finish together: threads that are equally
// fast have at most a fair share and the shortest run more.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/products/gemm.h"

namespace foe {

// The time of multiplying a panel with so many rows, in units of one row's arithmetic. Reading the panel takes as long
// as about four rows.
inline std::size_t cost_of_panel(int rows) {
  return rows + 4;
}

class PanelRuns {
 public:
  // So many panels (`together`: 2 for gate and up) are never separated.
  PanelRuns(std::span<const Product> products, int together, int threads)
      : products_(products), together_(together), threads_(threads) {
    constexpr std::size_t kShortest = std::size_t{32} << 10;  // bytes of weights that are worth it, for one row
    std::size_t worth = 0;
    for (const Product& product : products_)
      if (const std::size_t parts = parts_of(product), cost = cost_of_part(product); parts > 0) {
        total_ += parts * cost;
        shortest_ = std::max(shortest_, cost);
        const std::size_t panels = kShortest / std::max<std::size_t>(product.w->panel_stride, 1);
        worth = std::max(worth, panels * cost_of_panel(1));
      }
    shortest_ = std::max(shortest_, std::min(worth, total_ / (4 * threads_)));
    while ((total_ >> halvings_) / (2 * threads_) >= shortest_) ++halvings_;
  }

  std::size_t count() const { return halvings_ * threads_ + ((total_ >> halvings_) + shortest_ - 1) / shortest_; }

  // Calls body(product, first, last) for the panels of a run: those of one product in each call. `first` is a multiple
  // of `together`, as is `last` unless it is the end.
  template <typename Body>
  void for_each_piece(std::size_t run, Body&& body) const {
    const std::size_t from = begin(run), to = begin(run + 1);
    std::size_t at = 0;
    for (const Product& product : products_) {
      const std::size_t parts = parts_of(product), cost = cost_of_part(product);
      const auto panels_before = [&](std::size_t cut) {
        return together_ * static_cast<int>(cut <= at ? 0 : std::min(parts, (cut - at + cost - 1) / cost));
      };
      const int first = panels_before(from), last = std::min(panels_before(to), product.w->panels());
      if (first < last) body(product, first, last);
      at += parts * cost;
      if (at >= to) break;
    }
  }

 private:
  std::size_t parts_of(const Product& product) const {
    return product.count == 0 ? 0 : (product.w->panels() + together_ - 1) / together_;
  }
  std::size_t cost_of_part(const Product& product) const { return together_ * cost_of_panel(product.count); }
  // Returns where a run begins, in units of cost.
  std::size_t begin(std::size_t run) const {
    const std::size_t halved = std::min(run / threads_, halvings_), left = total_ >> halved;
    const std::size_t before = total_ - left, runs = run - halved * threads_;
    return halved < halvings_ ? before + runs * (left / 2) / threads_ : std::min(total_, before + runs * shortest_);
  }

  std::span<const Product> products_;
  int together_;
  std::size_t threads_, total_ = 0, shortest_ = 1, halvings_ = 0;
};

}  // namespace foe
