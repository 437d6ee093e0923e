// The experts of a layer as a table: what each of them computes, and for which of the H expert groups.
//
// Two kinds are enough. An expert with rows is a feed-forward network: tokens are its rows. An affine expert adds
// a x + b v to a token, where x is what experts read and v a vector of its own, and needs neither rows nor products
// (MoE++, Jin et al. 2024): a zero expert adds nothing, a copy expert x, and a constant expert a x + b v with
// (a, b) = the softmax of two more scores.
//
// Experts are known by their ids. First come those with rows, group by group, and in each group those that the router
// scores before those that every token has; then the affine ones, group by group: constant, copy, zero. Scores are
// columns of the router's product: each group has consecutive ones, for its experts in the order of their ids.
#pragma once

namespace foe {

enum class ExpertKind { kRouted, kShared, kConstant, kCopy, kZero };

struct ExpertTable {
  int groups = 1;    // H, which have equally many of each kind
  int routed = 0;    // with rows, scored by the router
  int shared = 0;    // with rows, and every token has them
  int constant = 0;  // affine
  int copy = 0;
  int zero = 0;
  bool shared_gate = false;  // the shared experts' weight is the sigmoid of one more score (Qwen2-MoE), otherwise 1

  int with_rows() const { return routed + shared; }
  int affine() const { return constant + copy + zero; }
  int size() const { return with_rows() + affine(); }
  int scored() const { return routed + affine(); }
  // Columns of the router's product: the scores, two more of each constant expert, and that of the shared experts.
  int columns() const { return scored() + 2 * constant + (shared_gate ? 1 : 0); }
  // Whether ids are columns of the scores.
  bool plain() const { return shared == 0 && affine() == 0; }

  int rows_per_group() const { return with_rows() / groups; }
  int affine_per_group() const { return affine() / groups; }

  int id_of_score(int column) const {
    const int per_group = scored() / groups, own = routed / groups, group = column / per_group, i = column % per_group;
    return i < own ? group * rows_per_group() + i : with_rows() + group * affine_per_group() + i - own;
  }
  // Which of all routed or shared experts an expert with rows is.
  int routed_index(int id) const { return group_of(id) * (routed / groups) + id % rows_per_group(); }
  int shared_index(int id) const { return group_of(id) * (shared / groups) + id % rows_per_group() - routed / groups; }
  // The j-th of the group's shared experts.
  int id_of_shared(int group, int j) const { return group * rows_per_group() + routed / groups + j; }
  int group_of(int id) const {
    return id < with_rows() ? id / rows_per_group() : (id - with_rows()) / affine_per_group();
  }
  ExpertKind kind_of(int id) const {
    if (id < with_rows()) return id % rows_per_group() < routed / groups ? ExpertKind::kRouted : ExpertKind::kShared;
    const int i = (id - with_rows()) % affine_per_group();
    if (i < constant / groups) return ExpertKind::kConstant;
    return i < (constant + copy) / groups ? ExpertKind::kCopy : ExpertKind::kZero;
  }

  bool operator==(const ExpertTable&) const = default;
};

}  // namespace foe
