// What one rank holds of a model: plain ranges, filled by placement/, read by weights/ and model/.
#pragma once

namespace foe {

// The half-open range [begin, end).
struct Range {
  int begin = 0;
  int end = 0;

  int size() const { return end - begin; }
  bool contains(int i) const { return begin <= i && i < end; }
};

struct Share {
  Range groups;        // federated: groups whose heads, experts and updates M_h are here. Otherwise [0, 1): one stream
  int member = 0;      // which of the ranks with these groups: it runs the sequences of this owner (core/batch.h)
  Range kv_heads;      // with each KV head go its N/M query heads
  Range experts;       // experts of which this rank holds all or a part
  Range expert_width;  // that part: these of each expert's F hidden units
  Range vocab;         // rows of the token head

  // A stream is a hidden state that attention reads: each group has its own in a federated model, else there is one.
  int streams() const { return groups.size(); }
  // Nothing is left for a rank past the last whole multiple of the groups: it only takes part in broadcasts and
  // gathers.
  bool idle() const { return groups.size() == 0; }
};

}  // namespace foe
