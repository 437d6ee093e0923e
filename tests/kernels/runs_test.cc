// How evenly products are divided among the threads of large machines, counted: nothing here takes time.
#include "kernels/products/runs.h"

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace foe {
namespace {

// Products of `rows` activations, without their weights.
struct Products {
  std::string name;
  int together;
  std::deque<PackedMatrix> matrices;
  std::vector<Product> list;

  Products(std::string name_, int together_) : name(std::move(name_)), together(together_) {}
  Products& add(int width, int depth, int rows, WeightFormat format) {
    matrices.push_back(
        {.format = format, .rows = width, .depth = depth, .panel_stride = panel_bytes(format, depth), .own = {}});
    list.push_back({.count = rows, .w = &matrices.back(), .y_stride = static_cast<std::size_t>(width)});
    return *this;
  }
  // The work that may be more than a fair share.
  std::size_t tolerance() const {
    std::size_t least = -1, most = 0;
    for (const Product& p : list)
      if (const std::size_t cost = together * cost_of_panel(p.count); p.count > 0)
        least = std::min(least, cost), most = std::max(most, cost);
    return least == most ? most : 2 * most;
  }
};

// The products of a layer of Qwen3-30B-A3B, and of the 1B shape of the paper.
std::deque<Products> products_of_layers(int tokens, WeightFormat format) {
  std::deque<Products> all;
  all.emplace_back("Qwen3 projections", 1).add(4096 + 2 * 512, 2048, tokens, format);
  all.emplace_back("Qwen3 output", 1).add(2048, 4096, tokens, format);
  all.emplace_back("1B projections", 1).add(3072, 2048, tokens, format);
  all.emplace_back("token head", 1).add(151936, 2048, tokens, format);
  const int experts = std::min(128, 8 * tokens), rows = std::max(1, tokens * 8 / 128);
  Products& up = all.emplace_back("Qwen3 gate and up", 2);
  for (int e = 0; e < experts; ++e) up.add(2 * 768, 2048, rows + e % 3, format);
  Products& down = all.emplace_back("Qwen3 down", 1);
  for (int e = 0; e < experts; ++e) down.add(2048, 768, rows + e % 3, format);
  all.emplace_back("one panel", 1).add(7, 64, tokens, format);
  all.emplace_back("some without rows", 1).add(100, 64, 0, format).add(100, 64, tokens, format).add(50, 64, 0, format);
  return all;
}

template <typename Body>
void for_each_case(Body&& body) {
  for (const int threads : {1, 2, 16, 64, 128})
    for (const int tokens : {1, 16, 512})
      for (const WeightFormat format : {WeightFormat::kBF16, WeightFormat::kInt4})
        for (const Products& products : products_of_layers(tokens, format)) {
          SCOPED_TRACE(products.name + ", " + std::to_string(tokens) + " tokens, " + std::to_string(threads) +
                       " threads");
          body(products, PanelRuns(products.list, products.together, threads), threads);
        }
}

TEST(PanelRuns, HaveEveryPanelOnce) {
  for_each_case([](const Products& products, const PanelRuns& runs, int) {
    std::map<const PackedMatrix*, std::vector<int>> seen;
    for (std::size_t run = 0; run < runs.count(); ++run)
      runs.for_each_piece(run, [&](const Product& product, int first, int last) {
        EXPECT_EQ(first % products.together, 0);
        EXPECT_TRUE(last % products.together == 0 || last == product.w->panels());
        seen[product.w].resize(product.w->panels());
        for (int panel = first; panel < last; ++panel) ++seen[product.w][panel];
      });
    for (const Product& product : products.list)
      EXPECT_EQ(seen[product.w], std::vector<int>(product.count ? product.w->panels() : 0, 1));
  });
}

// Threads that are equally fast take the next run whenever they are done. No thread has more work than a fair share of
// it and one part, which cannot be divided; or two, where parts differ, as a run may end within a larger one.
TEST(PanelRuns, NoThreadHasMuchMoreThanItsShare) {
  for_each_case([](const Products& products, const PanelRuns& runs, int threads) {
    std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> done;
    for (int i = 0; i < threads; ++i) done.push(0);
    std::size_t total = 0, last_done = 0;
    for (std::size_t run = 0; run < runs.count(); ++run) {
      std::size_t cost = 0;
      runs.for_each_piece(run, [&](const Product& product, int first, int last) {
        const std::size_t parts = (last - first + products.together - 1) / products.together;
        cost += parts * products.together * cost_of_panel(product.count);
      });
      total += cost;
      last_done = std::max(last_done, done.top() + cost);
      done.push(done.top() + cost);
      done.pop();
    }
    EXPECT_LE(last_done, total / threads + 2 + products.tolerance());  // runs are cut at whole units
  });
}

// Results that begin at a cache line, in rows of whole lines: no line is written in two runs, so that no two threads
// fight for one.
TEST(PanelRuns, NoTwoWriteTheSameCacheLine) {
  constexpr int kLineFloats = 16;
  for_each_case([&](const Products& products, const PanelRuns& runs, int) {
    std::map<std::pair<const Product*, int>, std::size_t> writer;  // by product and line of a row
    for (std::size_t run = 0; run < runs.count(); ++run)
      runs.for_each_piece(run, [&](const Product& product, int first, int last) {
        const int first_column = first * kPanel / products.together;
        const int end = std::min(last * kPanel / products.together, static_cast<int>(product.y_stride));
        for (int line = first_column / kLineFloats; line * kLineFloats < end; ++line) {
          const auto [at, is_new] = writer.emplace(std::pair(&product, line), run);
          EXPECT_TRUE(is_new || at->second == run) << "line " << line;
        }
      });
  });
}

}  // namespace
}  // namespace foe
