// Computes which tokens may follow in a text of rules. Private to this folder.
//
// All tokens are walked through at once, and what has been open before a byte says what is open behind it, whichever
// token it is in: so a step is made once for each class of bytes and each list of stacks, of which there are few.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "grammar/stacks.h"
#include "grammar/token_table.h"

namespace foe {

class RuleMask {
 public:
  RuleMask(const GrammarProgram& program, const TokenTable& table, Stacks& stacks, std::span<std::uint64_t> bits)
      : program_(program), table_(table), stacks_(stacks), bits_(bits) {}

  // Sets the bits of the tokens that may follow with some of the stacks, and leaves Stacks as they were. Returns
  // whether these are all: of a very ambiguous grammar some may be left out.
  bool fill(const std::vector<Stack>& open);

 private:
  // Stacks that are open together, and by class of bytes the number of those that they become: 0 are none.
  struct Readings {
    std::vector<Stack> stacks;
    std::vector<std::uint32_t> next;
  };
  static constexpr std::uint32_t kUnknown = 0xffffffff;
  // Steps of stacks, of which a new list of stacks counts as some: these take some milliseconds.
  static constexpr std::uint64_t kMaxCompared = 200'000, kPerReadings = 64;

  std::uint32_t number_of(std::vector<Stack> stacks);
  std::uint32_t step(std::uint32_t from, std::uint8_t byte);
  bool spent() const;

  const GrammarProgram& program_;
  const TokenTable& table_;
  Stacks& stacks_;
  std::span<std::uint64_t> bits_;
  std::vector<Readings> readings_;
  std::map<std::vector<std::pair<std::uint64_t, std::uint32_t>>, std::uint32_t> numbers_;
  std::uint64_t limit_ = 0;
};

}  // namespace foe
