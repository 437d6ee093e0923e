#pragma once

#include <string>

namespace foe {

// Lets the kernels use no more than this instruction set, named as instruction_set() does (kernels/cpu.h), as a lesser
// processor would. To be called before they run. Throws Error, naming `source`, for a set that is not here.
void limit_instruction_set(const std::string& name, const std::string& source);

}  // namespace foe
