// What the ranks of a job have to have in common: they may have been started with different flags, from stale copies of
// a model, or of foe. Found out when the job starts, as later it is a wrong text at best.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace foe {

struct Fact {
  std::string name, value;
  bool may_differ = false;  // without changing an answer: then a difference is only worth a line
};

// Collective. Throws the same Error on every rank where one has another value than rank 0, or a fact that the other
// does not have: it names the first such rank, and in what it differs. Empty values agree with any. Returns, on rank 0,
// a line about differences that may be; it is empty where there are none. The exchange does not count.
std::string require_agreement(Communicator& comm, const std::vector<Fact>& facts);

}  // namespace foe
