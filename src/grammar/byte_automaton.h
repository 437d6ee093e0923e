// Finite automata over bytes: a nondeterministic one (NFA) to build, and a deterministic one (DFA) to run. Private to
// this folder.
#pragma once

#include <array>
#include <bitset>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace foe {

// An NFA, built by Thompson's construction. Each state says whether it is between two characters of the text or inside
// one.
class ByteNfa {
 public:
  enum class EdgeKind : std::uint8_t {
    kByte,   // takes a byte in [low, high]
    kEmpty,  // takes nothing
    kBegin,  // takes nothing, and only before the first byte
    kEnd,    // takes nothing, and only after the last byte
    kCall,   // takes a text of a rule
  };
  struct Edge {
    EdgeKind kind;
    std::uint8_t low, high;
    std::uint32_t to;
    std::uint32_t rule = 0;  // kCall
  };
  struct State {
    bool inside_character;
    std::vector<Edge> edges;
  };

  // Adds a state and returns its number. Throws Error if there are too many states.
  std::uint32_t add_state(bool inside_character = false);
  void add_bytes(std::uint32_t from, std::uint32_t to, std::uint8_t low, std::uint8_t high);
  void add_empty(std::uint32_t from, std::uint32_t to, EdgeKind kind = EdgeKind::kEmpty);
  void add_call(std::uint32_t from, std::uint32_t to, std::uint32_t rule);
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

// A DFA. An accepting state can be reached from every state that step() returns, except kDead. In the automaton of a
// rule, a text of another rule may also lead from one state to the next: a call.
struct ByteAutomaton {
  static constexpr std::uint16_t kDead = 0xffff;
  struct State {
    bool accepting = false;
    bool final = false;               // it is accepting, and nothing can follow
    bool between_characters = false;  // quoted texts: any next byte but the closing quote begins a character
    std::uint32_t distance = 0;       // after add_distances(): the fewest characters that are still needed
    bool repeats = false;             // rules: it is accepting, and what may follow it may come any number of times
    std::uint16_t height = 0;         // rules: how many calls are open at once in the flattest text from here on
  };
  struct Call {
    std::uint32_t rule;
    std::uint16_t to;
  };

  std::array<std::uint8_t, 256> byte_class{};
  std::size_t classes = 0;
  std::vector<std::uint16_t> next;  // [state][class of a byte]
  std::vector<State> states;
  std::uint16_t start = kDead;               // kDead: no text is accepted
  std::vector<std::vector<Call>> calls;      // [state]; empty if no state has any
  std::vector<std::bitset<256>> call_bytes;  // [state], like `calls`: the bytes with which its calls can begin
  std::bitset<256> first;                    // rules: the bytes with which a text can begin
  std::uint32_t most_distance = 0;           // the greatest of a state's distances
  std::uint16_t height = 0;                  // the greatest height of a state that has texts

  bool has_calls(std::uint16_t state) const { return !calls.empty() && !calls[state].empty(); }

  std::uint16_t step(std::uint16_t state, std::uint8_t byte) const { return next[state * classes + byte_class[byte]]; }
};

// Replaces states from which no accepting state can be reached by kDead, and sets which states are final.
void drop_dead_ends(ByteAutomaton& automaton);

// Sets the distance of each state of an automaton of quoted texts.
void add_distances(ByteAutomaton& automaton);

// A quota on the work of making automata: each spends from it.
struct AutomatonBudget {
  std::size_t steps = 4'000'000;  // edges that are looked at, which takes some tens of milliseconds
  std::size_t cells = 1'000'000;  // elements of `next`
};

// Returns the automaton of the texts that lead from `start` to `accept` and have a number of characters in
// `characters`. With `quoted` the texts are in double quotes; then the NFA must have no unescaped quote. Throws Error
// if this takes more than is left of the budget.
ByteAutomaton make_automaton(const ByteNfa& nfa, std::uint32_t start, std::uint32_t accept, bool quoted,
                             CountRange characters, AutomatonBudget& budget);

}  // namespace foe
