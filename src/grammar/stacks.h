// Runs the pushdown automaton of a grammar: keeps what is open in the text so far, and advances it by a byte. Private
// to this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/nodes.h"

namespace foe {

// How much of a value has come. Each kind of node uses some of the fields.
struct Frame {
  enum class Phase : std::uint8_t {
    kOpen,   // arrays, objects: after the opening bracket; rules: before the first byte
    kComma,  // arrays, objects: after a comma
    kKey,    // objects: inside a listed key
    kName,   // objects: inside the name of another property
    kColon,  // objects: the colon is next
    kValue,  // objects, the document: a value is next
    kAfter,  // arrays, objects, the document: after a value; rules: after a byte or a call
  };
  static constexpr NodeId kDocument = kUnreachable;  // the document, whose only value is the root

  NodeId node = kDocument;
  Phase phase = Phase::kValue;
  std::uint8_t blanks = 0;    // whitespace so far, see next_blanks()
  std::uint16_t state = 0;    // strings, numbers and names: the state of the automaton
  std::uint32_t matched = 0;  // literals and keys: how many bytes have come
  std::uint32_t low = 0;      // literals and keys: [low, high) of the ascending ones begin like that
  std::uint32_t high = 0;
  std::uint32_t index = 0;  // the next item, or the first listed property that may follow
  std::uint32_t count = 0;  // how many characters, or properties, have come
  std::uint32_t names = 0;  // the names of other properties so far: a list in Stacks
  std::uint32_t begin = 0;  // where the current name begins in Stacks::text
  NodeId value = 0;         // the value of the current property
  bool operator==(const Frame&) const = default;
};

// A stack: its top frame, and the frames below, which are in Stacks. Stacks share these, and they never change.
struct Stack {
  Frame top;
  std::uint32_t below = 0;  // 0: there is nothing below
  bool operator==(const Stack&) const = default;
};

// Returns what the top frame of a stack of rules says.
inline std::uint64_t rule_state(const Stack& stack) {
  return std::uint64_t{stack.top.node} << 32 | std::uint64_t{stack.top.state} << 8 |
         static_cast<std::uint64_t>(stack.top.phase);
}

struct AutomatonRead {
  std::uint32_t automaton;   // an index into GrammarProgram::automata
  std::uint32_t characters;  // how many characters may follow at most
};

// The most alternatives that are followed at once. If there are more, the last ones are given up. Then the output is
// still an allowed text, but not every allowed text can come.
constexpr std::size_t kMaxStacks = 128;
constexpr std::size_t kMaxRuleStacks = 32;  // of rules, which can be far more ambiguous than JSON

class Stacks {
 public:
  explicit Stacks(const GrammarProgram& program) : program_(&program), frames_(1), names_(1) {}

  std::string text;            // the whole text so far
  std::uint64_t compared = 0;  // stacks of rules with others so far, which is what their steps cost

  // Appends the stacks that `stack` becomes by the last byte of `text` to `out`, without those that are there already
  // from element `begin` on.
  void step(const Stack& stack, std::vector<Stack>& out, std::size_t begin);
  // Returns the stacks of rules that `stacks` become by a byte, which is not taken from `text`.
  std::vector<Stack> step_rules(const std::vector<Stack>& stacks, std::uint8_t byte);
  // Whether the text is complete if this stack is right.
  bool complete(Stack stack) const;
  // Returns the automaton that reads the next byte, if one does. Its state is in the top frame.
  std::optional<AutomatonRead> automaton(const Stack& stack) const;
  // Appends the stacks that `stack`, which is of no rule, becomes by `bytes` to `out`, which may have no more than
  // kMaxStacks.
  void follow(const Stack& stack, std::string_view bytes, std::vector<Stack>& out);
  // Appends, like step(), the stack after the value or name that such an automaton has accepted, when `characters` more
  // have come and are in `text`. Appends nothing if these are too few, or if the name has come before.
  void leave(Stack stack, std::uint32_t characters, std::vector<Stack>& out, std::size_t begin);

  struct Mark {
    std::size_t frames, names, text;
  };
  Mark mark() const { return {frames_.size(), names_.size(), text.size()}; }
  void rewind(const Mark& mark);
  // Returns what tells stacks of rules from others: what may follow depends on nothing else. Empty if that is longer
  // than `most`.
  std::vector<std::uint64_t> rules_key(const std::vector<Stack>& stacks, std::size_t most) const;
  // Drops frames that none of `stacks` needs, and renumbers the others in `stacks`: of equal stacks in equal ways.
  void compact(std::vector<Stack>& stacks);

 private:
  struct Below {
    Frame frame;
    std::uint32_t below = 0;
    std::uint32_t nesting = 0;           // how many arrays and objects, or calls, are open up to here
    std::uint32_t first = 0, later = 0;  // the last frame that was put on this one, and the one before this on `below`
  };
  struct Name {
    std::uint32_t previous = 0;  // 0: none
    std::size_t hash = 0;
  };

  struct RuleStep;
  struct Step;
  std::optional<Stack> begun_rule(const Stack& stack);
  std::uint32_t push(const Stack& stack);
  std::uint32_t add_name(std::uint32_t previous, std::size_t hash);

  const GrammarProgram* program_;
  std::vector<Below> frames_;    // [0] is unused
  std::vector<Name> names_;      // likewise
  std::size_t known_names_ = 1;  // names_.size() at the last compact(): older names are not compared
};

}  // namespace foe
