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
  // A beginning of tokens that the automaton accepts. Whatever such a token has behind it belongs to what follows the
  // automaton's value.
  struct Exit {
    std::uint32_t node;        // the beginning, as a node of the TokenTable; 0: the automaton accepts before any byte
    std::uint32_t characters;  // how many characters the automaton has read in it
  };
  std::vector<std::uint64_t> bits;  // the tokens after whose last byte the automaton can still read on
  std::vector<Exit> exits;
};

// Follows all tokens from `state` on, and reads at most `max_characters` characters of a string in each.
TokenRun find_run(const TokenTable& table, const ByteAutomaton& automaton, std::uint16_t state,
                  std::uint32_t max_characters);

// Keeps up to 256 runs; when there are more, it begins anew. One thread at a time.
class TokenRuns {
 public:
  // Returns what find_run() returns. `id` tells the automaton from the others of its grammar. The reference is valid
  // until the next call.
  const TokenRun& get(const TokenTable& table, std::uint32_t id, const ByteAutomaton& automaton, std::uint16_t state,
                      std::uint32_t max_characters);

 private:
  std::map<std::tuple<const TokenTable*, std::uint32_t, std::uint16_t, std::uint32_t>, TokenRun> runs_;
};

}  // namespace foe
