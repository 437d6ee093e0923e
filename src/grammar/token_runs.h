// Which tokens an automaton can read, found once for each of its states. Private to this folder.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "grammar/byte_automaton.h"
#include "grammar/token_table.h"

namespace foe {

// What the vocabulary does from one state of an automaton on.
struct TokenRun {
  struct Exit {
    std::uint32_t node;        // of the TokenTable
    std::uint32_t characters;  // that the automaton has read on the way to it
  };
  std::vector<std::uint64_t> bits;  // the tokens that end inside the automaton
  std::vector<Exit> exits;  // where it accepts, and what comes next in the token (or nothing) is not its business
};

TokenRun find_run(const TokenTable& table, const ByteAutomaton& automaton, std::uint16_t state,
                  std::uint32_t max_characters);

// Runs that were needed lately. One thread at a time.
class TokenRuns {
 public:
  // The reference holds until the next call.
  const TokenRun& get(const TokenTable& table, std::uint32_t id, const ByteAutomaton& automaton, std::uint16_t state,
                      std::uint32_t max_characters);

 private:
  std::map<std::tuple<const TokenTable*, std::uint32_t, std::uint16_t, std::uint32_t>, TokenRun> runs_;
};

}  // namespace foe
