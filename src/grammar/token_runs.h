// Finds which tokens an automaton can read, once for each of its states. Private to this folder.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "grammar/byte_automaton.h"
#include "grammar/token_table.h"

namespace foe {

// What the tokens of the vocabulary do from one state of an automaton on.
struct TokenRun {
  struct Exit {
    std::uint32_t node;        // a node of the TokenTable
    std::uint32_t characters;  // how many the automaton has read on the way to it
  };
  std::vector<std::uint64_t> bits;  // the tokens after which the automaton is still running
  std::vector<Exit> exits;          // where the automaton accepts, and the rest of the token belongs to what follows
};

TokenRun find_run(const TokenTable& table, const ByteAutomaton& automaton, std::uint16_t state,
                  std::uint32_t max_characters);

// Caches runs that were needed lately. One thread at a time.
class TokenRuns {
 public:
  // Returns a run. The reference is valid until the next call.
  const TokenRun& get(const TokenTable& table, std::uint32_t id, const ByteAutomaton& automaton, std::uint16_t state,
                      std::uint32_t max_characters);

 private:
  std::map<std::tuple<const TokenTable*, std::uint32_t, std::uint16_t, std::uint32_t>, TokenRun> runs_;
};

}  // namespace foe
