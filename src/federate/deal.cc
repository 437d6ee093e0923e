#include "federate/deal.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace foe {
namespace {

constexpr int kNowhere = -1;      // the group of an expert that has not been dealt
constexpr int kRandomStarts = 3;  // besides the greedy one

// A deal under construction, and the lost weight of each token. Experts that are not dealt cost nothing, and one more
// never lowers a token's cost: the best ones of more choices are worth at least as much.
class Deal {
 public:
  Deal(const Choices& choices, int groups)
      : choices_(choices),
        groups_(groups),
        kept_(kept_per_group(choices, groups)),
        group_E_(choices.experts(), kNowhere),
        size_H_(groups),
        tokens_E_(choices.experts()),
        cost_T_(choices.tokens()),
        count_H_(groups) {
    for (int t = 0; t < choices.tokens(); ++t)
      for (const int e : choices.experts_of(t)) tokens_E_[e].push_back(t);
  }

  const std::vector<int>& groups() const { return group_E_; }
  std::int64_t cost() const { return cost_; }
  int experts() const { return choices_.experts(); }
  bool has_room(int group) const { return size_H_[group] < experts() / groups_; }
  bool is_empty(int group) const { return size_H_[group] == 0; }

  // Puts an expert into a group, or (kNowhere) takes it out of its own.
  void move(int expert, int group) {
    if (group_E_[expert] != kNowhere) --size_H_[group_E_[expert]];
    if (group != kNowhere) ++size_H_[group];
    group_E_[expert] = group;
    for (const int t : tokens_E_[expert]) update(t);
  }

  // Exchanges two experts if that lowers the cost.
  bool trade(int a, int b) {
    std::swap(group_E_[a], group_E_[b]);
    std::int64_t change = 0;
    for (const int t : tokens_E_[a]) change += cost_of(t) - cost_T_[t];
    for (const int t : tokens_E_[b])
      if (!chose(t, a)) change += cost_of(t) - cost_T_[t];
    if (change >= 0) {
      std::swap(group_E_[a], group_E_[b]);
      return false;
    }
    for (const int e : {a, b})
      for (const int t : tokens_E_[e]) update(t);
    return true;
  }

  // All experts, those with the largest sums of weights first.
  std::vector<int> by_weight() const {
    std::vector<std::int64_t> sum_E(experts());
    for (int t = 0; t < choices_.tokens(); ++t)
      for (int i = 0; i < choices_.per_token(); ++i) sum_E[choices_.experts_of(t)[i]] += choices_.weights_of(t)[i];
    std::vector<int> order(experts());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int a, int b) { return sum_E[a] > sum_E[b]; });
    return order;
  }

 private:
  bool chose(int t, int expert) const {
    const auto experts_K = choices_.experts_of(t);
    return std::ranges::find(experts_K, expert) != experts_K.end();
  }

  std::int64_t cost_of(int t) {
    std::ranges::fill(count_H_, 0);
    std::int64_t cost = 0;
    for (int i = 0; i < choices_.per_token(); ++i) {
      const int group = group_E_[choices_.experts_of(t)[i]];
      if (group != kNowhere && ++count_H_[group] > kept_) cost += choices_.weights_of(t)[i];
    }
    return cost;
  }

  void update(int t) {
    const std::int64_t cost = cost_of(t);
    cost_ += cost - std::exchange(cost_T_[t], cost);
  }

  const Choices& choices_;
  int groups_, kept_;
  std::vector<int> group_E_, size_H_;
  std::vector<std::vector<int>> tokens_E_;  // which tokens chose an expert
  std::vector<std::int64_t> cost_T_;
  std::int64_t cost_ = 0;
  std::vector<int> count_H_;
};

void deal_greedily(Deal& deal, int groups) {
  for (const int e : deal.by_weight()) {
    int best = kNowhere;
    std::int64_t least = 0;
    for (int g = 0; g < groups; ++g) {
      if (!deal.has_room(g)) continue;
      deal.move(e, g);
      if (best == kNowhere || deal.cost() < least) best = g, least = deal.cost();
      deal.move(e, kNowhere);
    }
    deal.move(e, best);
  }
}

void deal_at_random(Deal& deal, int groups, std::uint64_t seed) {
  std::vector<int> order(deal.experts());
  std::iota(order.begin(), order.end(), 0);
  for (int i = deal.experts() - 1; i > 0; --i) std::swap(order[i], order[random_bits(seed, i) % (i + 1)]);
  for (int i = 0; i < deal.experts(); ++i) deal.move(order[i], i % groups);
}

void trade_while_it_pays(Deal& deal) {
  for (bool traded = true; traded;) {
    traded = false;
    for (int a = 0; a < deal.experts(); ++a)
      for (int b = a + 1; b < deal.experts(); ++b)
        if (deal.groups()[a] != deal.groups()[b] && deal.trade(a, b)) traded = true;
  }
}

struct Best {
  std::vector<int> group_E;
  std::int64_t cost;
};

// Deals order[next...] in every way that may cost less than the best so far. Of empty groups one stands for all.
void search(Deal& deal, const std::vector<int>& order, std::size_t next, int groups, Best& best) {
  if (deal.cost() >= best.cost) return;
  if (next == order.size()) {
    best = {deal.groups(), deal.cost()};
    return;
  }
  for (int g = 0; g < groups; ++g) {
    if (!deal.has_room(g)) continue;
    const bool empty = deal.is_empty(g);
    deal.move(order[next], g);
    search(deal, order, next + 1, groups, best);
    deal.move(order[next], kNowhere);
    if (empty) break;
  }
}

// In how many ways E experts can be dealt: E! / ((E / H)!^H H!).
double ways(int experts, int groups) {
  double all = 1;
  for (int left = experts, size = experts / groups; left > 0; left -= size)  // the first expert left, and its company
    for (int i = 1; i < size; ++i) all *= static_cast<double>(left - i) / i;
  return all;
}

// Groups are numbered by their first experts.
std::vector<int> renumbered(std::vector<int> group_E, int groups) {
  std::vector<int> number_H(groups, kNowhere);
  int next = 0;
  for (int& g : group_E) {
    if (number_H[g] == kNowhere) number_H[g] = next++;
    g = number_H[g];
  }
  return group_E;
}

}  // namespace

std::vector<int> deal_experts(const Choices& choices, int groups, std::uint64_t seed) {
  FOE_CHECK(groups >= 1 && choices.experts() % groups == 0, "{} groups of {} experts", groups, choices.experts());
  Deal greedy(choices, groups);
  deal_greedily(greedy, groups);
  trade_while_it_pays(greedy);
  Best best{greedy.groups(), greedy.cost()};
  if (ways(choices.experts(), groups) <= kExactDeals) {
    Deal empty(choices, groups);
    search(empty, empty.by_weight(), 0, groups, best);
    return renumbered(best.group_E, groups);
  }
  for (std::uint64_t start = 0; start < kRandomStarts; ++start) {
    Deal deal(choices, groups);
    deal_at_random(deal, groups, random_bits(seed, start));
    trade_while_it_pays(deal);
    if (deal.cost() < best.cost) best = {deal.groups(), deal.cost()};
  }
  return renumbered(best.group_E, groups);
}

}  // namespace foe
