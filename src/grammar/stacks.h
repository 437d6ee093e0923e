// The pushdown automaton of a grammar: what is open in the text so far, and what a next byte makes of it. Private to
// this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "grammar/nodes.h"

namespace foe {

// How far a value has come. Each kind of node uses some of the fields.
struct Frame {
  enum class Phase : std::uint8_t {
    kOpen,   // arrays, objects: behind the bracket
    kComma,  // arrays, objects: behind a comma
    kKey,    // objects: inside a listed key
    kName,   // objects: inside the name of another property
    kColon,  // objects: the colon is next
    kValue,  // objects, the document: a value is next
    kAfter,  // arrays, objects, the document: behind a value
  };
  static constexpr NodeId kDocument = kUnreachable;  // whose one value is the root

  NodeId node = kDocument;
  Phase phase = Phase::kValue;
  std::uint8_t blanks = 0;    // whitespace so far, see next_blanks
  std::uint16_t state = 0;    // of the automaton in strings, numbers and names
  std::uint32_t matched = 0;  // literals and keys: length of what has come
  std::uint32_t low = 0;      // literals and keys: those that begin so, [low, high) in ascending order
  std::uint32_t high = 0;
  std::uint32_t index = 0;  // of the next item, or of the first listed property that may follow
  std::uint32_t count = 0;  // characters, or properties
  std::uint32_t names = 0;  // of other properties so far: a list in Stacks
  std::uint32_t begin = 0;  // of the name, in Stacks::text
  NodeId value = 0;         // of the property that is next
  bool operator==(const Frame&) const = default;
};

// A stack: its top, and the frames below in Stacks. Those are shared by stacks and never change.
struct Stack {
  Frame top;
  std::uint32_t below = 0;  // 0: nothing
  bool operator==(const Stack&) const = default;
};

struct AutomatonRead {
  std::uint32_t automaton;   // an index into GrammarProgram::automata
  std::uint32_t characters;  // at most so many may follow
};

// The alternatives that are open at once. With more of them the last ones are given up: the text will be allowed, but
// not every allowed text can come.
constexpr std::size_t kMaxStacks = 128;

class Stacks {
 public:
  explicit Stacks(const GrammarProgram& program) : program_(&program), frames_(1), names_(1) {}

  std::string text;  // from the beginning

  // Appends to `out`, behind its first `begin` elements, the stacks that the last byte of `text` makes of `stack`.
  void step(const Stack& stack, std::vector<Stack>& out, std::size_t begin);
  // Whether the text is complete with this stack.
  bool complete(Stack stack) const;
  // What reads the next byte, if that is an automaton: its state is the top's.
  std::optional<AutomatonRead> automaton(const Stack& stack) const;
  // Appends, as step() does, the stack behind the value or name that such an automaton has accepted, `characters` and
  // `text` having come since: nothing if they are too few, or the name is there already.
  void leave(Stack stack, std::uint32_t characters, std::vector<Stack>& out, std::size_t begin);

  struct Mark {
    std::size_t frames, names, text;
  };
  Mark mark() const { return {frames_.size(), names_.size(), text.size()}; }
  void rewind(const Mark& mark);
  // Forgets frames that none of `stacks` needs, and changes those to fit.
  void compact(std::vector<Stack>& stacks);

 private:
  struct Below {
    Frame frame;
    std::uint32_t below = 0;
    std::uint32_t nesting = 0;  // arrays and objects up to here
  };
  struct Name {
    std::uint32_t previous = 0;  // 0: none
    std::size_t hash = 0;
  };

  struct Step;
  std::uint32_t push(const Stack& stack);
  std::uint32_t add_name(std::uint32_t previous, std::size_t hash);

  const GrammarProgram* program_;
  std::vector<Below> frames_;    // [0] is unused
  std::vector<Name> names_;      // likewise
  std::size_t known_names_ = 1;  // those before the last compact()
};

}  // namespace foe
