// Finite automata over bytes: a nondeterministic one to build, a deterministic one to run. Private to this folder.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace foe {

// Thompson's construction. States between two characters of the text are told from those inside one.
class ByteNfa {
 public:
  enum class EdgeKind : std::uint8_t {
    kByte,   // takes a byte in [low, high]
    kEmpty,  // takes nothing
    kBegin,  // takes nothing, before the first byte only
    kEnd,    // takes nothing, after the last byte only
  };
  struct Edge {
    EdgeKind kind;
    std::uint8_t low, high;
    std::uint32_t to;
  };
  struct State {
    bool inside_character;
    std::vector<Edge> edges;
  };

  // Throws Error if there are too many states.
  std::uint32_t add_state(bool inside_character = false);
  void add_bytes(std::uint32_t from, std::uint32_t to, std::uint8_t low, std::uint8_t high);
  void add_empty(std::uint32_t from, std::uint32_t to, EdgeKind kind = EdgeKind::kEmpty);
  const std::vector<State>& states() const { return states_; }

 private:
  std::vector<State> states_;
};

constexpr std::uint32_t kNoLimit = std::numeric_limits<std::uint32_t>::max();

struct CountRange {
  std::uint32_t min = 0;
  std::uint32_t max = kNoLimit;
  auto operator<=>(const CountRange&) const = default;
};

// From every state that step() gives, an accepting one can be reached.
struct ByteAutomaton {
  static constexpr std::uint16_t kDead = 0xffff;
  struct State {
    bool accepting = false;
    bool final = false;               // accepting, and no byte can follow
    bool between_characters = false;  // of a quoted text: a next byte other than the closing quote begins a character
  };

  std::array<std::uint8_t, 256> byte_class{};
  std::size_t classes = 0;
  std::vector<std::uint16_t> next;  // [state, class]
  std::vector<State> states;
  std::uint16_t start = kDead;  // kDead: accepts nothing

  std::uint16_t step(std::uint16_t state, std::uint8_t byte) const { return next[state * classes + byte_class[byte]]; }
};

// What making automata may still cost.
struct AutomatonBudget {
  std::size_t steps = 4'000'000;  // edges looked at: some ten milliseconds
  std::size_t cells = 1'000'000;  // of `next`
};

// The automaton of the texts that lead from `start` to `accept` and have so many characters; if `quoted`, in double
// quotes (the characters then have none that is unescaped). Throws Error if that takes more than the budget.
ByteAutomaton make_automaton(const ByteNfa& nfa, std::uint32_t start, std::uint32_t accept, bool quoted,
                             CountRange characters, AutomatonBudget& budget);

}  // namespace foe
