// Checks, when a job starts, that its ranks agree on what they must have in common. They may have been started with
// different flags, or from old copies of a model or of foe. Without this check the result would be a wrong text at
// best.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace foe {

struct Fact {
  std::string name, value;
  bool may_differ = false;  // if true, a difference changes no answer and is only reported
};

// Collective. Throws the same Error on every rank if some rank has another value than rank 0, or a fact that only one
// of the two has. The message names the first such rank and its differences. An empty value agrees with any. Returns,
// on rank 0, a line about differences in facts that may differ, or an empty string. The communicator's counters do not
// count this exchange.
std::string require_agreement(Communicator& comm, const std::vector<Fact>& facts);

}  // namespace foe
