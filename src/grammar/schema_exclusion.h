// Checks that the alternatives of oneOf exclude each other. Private to this folder.
#pragma once

#include <string>
#include <vector>

#include "grammar/nodes.h"

namespace foe {

struct OneOf {
  std::string path;
  std::vector<NodeId> choices;
};

// Throws Error, with the path, unless it is plain that no value is in two choices of one oneOf: the choices have
// different types or different literals, or are objects that require a property with different literals. The program
// must be finished (finish_program).
void check_exclusion(const GrammarProgram& program, const std::vector<OneOf>& one_ofs);

}  // namespace foe
