#include "grammar/stacks.h"

#include <algorithm>
#include <functional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "grammar/rule_step.h"

namespace foe {
namespace {

using Phase = Frame::Phase;

// Returns the next value of `blanks` if `byte` is allowed whitespace inside of so many arrays and objects, otherwise
// nothing. There may be one space, or a line end and up to kIndent spaces and tabs for each level: enough to indent
// JSON, and so little that a model which likes whitespace comes to the next value soon. `blanks` is 0 at first, 1 after
// a space, and 2 + n after a line end and n spaces or tabs.
std::optional<std::uint8_t> next_blanks(std::uint8_t blanks, std::uint8_t byte, std::uint32_t levels) {
  constexpr std::uint32_t kIndent = 4, kMost = 60 * kIndent;  // what `blanks` can count
  if (blanks == 0 && byte == ' ') return 1;
  if (blanks == 0 && byte == '\n') return 2;
  if (blanks >= 2 && blanks < 2 + std::min(levels * kIndent, kMost) && (byte == ' ' || byte == '\t')) return blanks + 1;
  return std::nullopt;
}

bool is_blank(std::uint8_t byte) {
  return byte == ' ' || byte == '\n' || byte == '\t';
}

// Narrows the range [low, high) of ascending texts, which are equal up to `at`, to those with `byte` there.
template <typename Text>
void narrow(std::uint32_t& low, std::uint32_t& high, std::size_t at, std::uint8_t byte, const Text& text) {
  const auto bound = [&](int least) {
    std::uint32_t first = low, last = high;
    while (first < last) {
      const std::uint32_t middle = first + (last - first) / 2;
      const std::string& candidate = text(middle);
      const int here = at < candidate.size() ? static_cast<std::uint8_t>(candidate[at]) : -1;
      (here < least ? first : last) = here < least ? middle + 1 : middle;
    }
    return first;
  };
  const std::uint32_t end = bound(byte + 1);
  low = bound(byte);
  high = end;
}

// Returns the spelling that listed keys have.
std::string canonical(std::string_view name) {
  if (name.find('\\') == std::string_view::npos) return std::string(name);
  return nlohmann::json::parse(name).dump();
}

}  // namespace

// One step of one stack.
struct Stacks::Step : RuleStep {
  const std::string& text() const { return stacks.text; }

  bool fits(NodeId id, std::uint32_t nesting) const { return program().nodes[id].height <= kMaxNesting - nesting; }
  // Returns how many arrays and objects are open, for a stack whose top is an array or an object.
  std::uint32_t nesting(const Stack& stack) const { return stacks.frames_[stack.below].nesting + 1; }

  void run(const Stack& stack) {
    if (stack.top.node == Frame::kDocument) return document(stack);
    std::visit([&](const auto& node) { run(node, stack); }, program().nodes[stack.top.node].body);
  }

  void document(const Stack& stack) {
    if (stack.top.phase == Phase::kValue) begin_value(stack, program().root);
  }

  // Takes the byte if it is whitespace. Returns whether it is, even if it is not allowed here: between a key and its
  // value there is no line end.
  bool take_blank(Stack stack) {
    if (!is_blank(byte)) return false;
    if (byte == '\n' && stack.top.phase == Phase::kValue) return true;
    if (const auto blanks = next_blanks(stack.top.blanks, byte, nesting(stack))) {
      stack.top.blanks = *blanks;
      emit(stack);
    }
    return true;
  }

  void enter(Stack stack, Phase phase) {
    stack.top.phase = phase;
    stack.top.blanks = 0;
    emit(stack);
  }

  // Pushes a frame for a value of `choice` and steps it. The frame below continues after the value.
  void begin_value(Stack stack, NodeId choice) {
    stack.top.phase = Phase::kAfter;
    stack.top.blanks = 0;
    const std::uint32_t below = stacks.push(stack);
    for (const NodeId id : std::get<ChoiceNode>(program().nodes[choice].body).alternatives) {
      if (!fits(id, stacks.frames_[below].nesting)) continue;
      Stack value{{}, below};
      value.top.node = id;
      value.top.phase = Phase::kOpen;
      std::visit([&](const auto& node) { open(node, value); }, program().nodes[id].body);
    }
  }

  void open(const ChoiceNode&, const Stack&) const { FOE_CHECK(false, "a choice among the alternatives of a choice"); }
  void open(const LiteralsNode& node, Stack stack) {
    stack.top.high = static_cast<std::uint32_t>(node.texts.size());
    run(node, stack);
  }
  void open(const AutomatonNode& node, Stack stack) {
    stack.top.state = program().automata[node.automaton]->start;
    run(node, stack);
  }
  void open(const RuleNode&, const Stack&) const { FOE_CHECK(false, "a rule within JSON"); }
  void run(const RuleNode&, const Stack&) const { FOE_CHECK(false, "a rule within JSON"); }
  void open(const StringNode& node, Stack stack) {
    stack.top.state = program().automata[kStringAutomaton]->start;
    run(node, stack);
  }
  void open(const ArrayNode&, const Stack& stack) {
    if (byte == '[') emit(stack);
  }
  void open(const ObjectNode&, const Stack& stack) {
    if (byte == '{') emit(stack);
  }

  void run(const ChoiceNode&, const Stack&) const { FOE_CHECK(false, "a choice on a stack"); }

  void run(const LiteralsNode& node, Stack stack) {
    Frame& top = stack.top;
    if (node.texts[top.low].size() == top.matched) run(popped(stack));
    narrow(
        top.low, top.high, top.matched, byte, [&](std::uint32_t i) -> auto& { return node.texts[i]; });
    if (top.low == top.high) return;
    ++top.matched;
    const bool whole = top.high - top.low == 1 && node.texts[top.low].size() == top.matched;
    emit(whole ? popped(stack) : stack);
  }

  void run(const AutomatonNode& node, Stack stack) {
    const ByteAutomaton& automaton = *program().automata[node.automaton];
    if (automaton.states[stack.top.state].accepting) run(popped(stack));
    if (node.max_characters != kNoLimit && automaton.states[stack.top.state].between_characters && byte != '"')
      ++stack.top.count;
    stack.top.state = automaton.step(stack.top.state, byte);
    if (stack.top.state == ByteAutomaton::kDead || stack.top.count > node.max_characters) return;
    if (automaton.states[stack.top.state].distance > node.max_characters - stack.top.count) return;
    emit(automaton.states[stack.top.state].final ? popped(stack) : stack);
  }

  void run(const StringNode& node, Stack stack) {
    const ByteAutomaton& automaton = *program().automata[kStringAutomaton];
    if (automaton.states[stack.top.state].between_characters && byte != '"') {
      if (stack.top.count == node.characters.max) return;
      ++stack.top.count;
    }
    stack.top.state = automaton.step(stack.top.state, byte);
    if (stack.top.state == ByteAutomaton::kDead) return;
    if (!automaton.states[stack.top.state].final) return emit(stack);
    if (stack.top.count >= node.characters.min) emit(popped(stack));
  }

  bool has_item(const ArrayNode& node, const Stack& stack) const {
    const auto item = node.item(stack.top.index);
    return stack.top.index < node.count.max && item && fits(*item, nesting(stack));
  }

  void run(const ArrayNode& node, Stack stack) {
    if (take_blank(stack)) return;
    const Phase phase = stack.top.phase;
    if (byte == ']') {
      if (phase != Phase::kComma && stack.top.index >= node.count.min) emit(popped(stack));
    } else if (!has_item(node, stack)) {
      return;
    } else if (phase == Phase::kAfter) {
      if (byte == ',') enter(stack, Phase::kComma);
    } else {
      const NodeId item = *node.item(stack.top.index++);
      begin_value(stack, item);
    }
  }

  void run(const ObjectNode& node, Stack stack) {
    switch (stack.top.phase) {
      case Phase::kKey:
        return key(node, stack);
      case Phase::kName:
        return name(node, stack);
      case Phase::kColon:
        if (byte == ':') enter(stack, Phase::kValue);
        return;
      default:
        break;
    }
    if (take_blank(stack)) return;
    const Phase phase = stack.top.phase;
    if (phase == Phase::kValue) {
      begin_value(stack, stack.top.value);
    } else if (byte == '}') {
      const bool enough = node.required[stack.top.index] == 0 && stack.top.count >= node.count.min;
      if (phase != Phase::kComma && enough) emit(popped(stack));
    } else if (phase == Phase::kAfter) {
      if (byte == ',' && (has_listed(node, stack, 0, node.by_key.size()) || has_other(node, stack))) {
        enter(stack, Phase::kComma);
      }
    } else if (byte == '"') {
      begin_key(node, stack);
    }
  }

  void begin_key(const ObjectNode& node, Stack stack) {
    if (has_other(node, stack)) {
      Stack other = stack;
      const ByteAutomaton& automaton = *program().automata[node.names];
      other.top.state = automaton.step(automaton.start, byte);
      other.top.begin = static_cast<std::uint32_t>(text().size() - 1);
      enter(other, Phase::kName);
    }
    stack.top.low = 0;
    stack.top.high = static_cast<std::uint32_t>(node.by_key.size());
    stack.top.matched = 1;
    if (has_listed(node, stack, stack.top.low, stack.top.high)) enter(stack, Phase::kKey);
  }

  bool has_other(const ObjectNode& node, const Stack& stack) const {
    return node.additional && node.required[stack.top.index] == 0 && stack.top.count < node.count.max &&
           fits(*node.additional, nesting(stack));
  }

  // Whether one of the properties by_key[low, high) may come next.
  bool has_listed(const ObjectNode& node, const Stack& stack, std::size_t low, std::size_t high) const {
    for (std::size_t i = low; i < high; ++i) {
      if (may_be_next(node, stack, node.by_key[i])) return true;
    }
    return false;
  }

  bool may_be_next(const ObjectNode& node, const Stack& stack, std::uint32_t property) const {
    if (property < stack.top.index || node.required[stack.top.index] != node.required[property]) return false;
    if (!fits(node.properties[property].value, nesting(stack))) return false;
    std::uint32_t count = stack.top.count + 1 + node.required[property + 1];
    if (count > node.count.max) return false;
    if (node.additional && fits(*node.additional, nesting(stack))) return true;
    for (std::size_t i = property + 1; i < node.properties.size() && count < node.count.min; ++i) {
      count += !node.properties[i].required && fits(node.properties[i].value, nesting(stack));
    }
    return count >= node.count.min;
  }

  void key(const ObjectNode& node, Stack stack) {
    Frame& top = stack.top;
    const auto key_of = [&](std::uint32_t i) -> auto& {
      return node.properties[node.by_key[i]].key;
    };
    narrow(top.low, top.high, top.matched, byte, key_of);
    if (!has_listed(node, stack, top.low, top.high)) return;
    ++top.matched;
    // The quote at the end of a key ensures that no key is the beginning of another.
    if (byte != '"' || key_of(top.low).size() != top.matched) return emit(stack);
    const std::uint32_t property = node.by_key[top.low];
    top.index = property + 1;
    top.value = node.properties[property].value;
    end_key(stack);
  }

  void name(const ObjectNode& node, Stack stack) {
    const ByteAutomaton& automaton = *program().automata[node.names];
    stack.top.state = automaton.step(stack.top.state, byte);
    if (stack.top.state == ByteAutomaton::kDead) return;
    if (!automaton.states[stack.top.state].final) return emit(stack);
    end_name(node, stack);
  }

  void end_name(const ObjectNode& node, Stack stack) {
    Frame& top = stack.top;
    const std::string name = canonical(std::string_view(text()).substr(top.begin));
    const auto found = std::lower_bound(
        node.by_key.begin(), node.by_key.end(), name,
        [&](std::uint32_t property, const std::string& key) { return node.properties[property].key < key; });
    if (found != node.by_key.end() && node.properties[*found].key == name) return;
    const std::size_t hash = std::hash<std::string>()(name);
    for (std::uint32_t i = top.names; i != 0; i = stacks.names_[i].previous) {
      if (stacks.names_[i].hash == hash) return;
    }
    top.names = stacks.add_name(top.names, hash);
    top.index = static_cast<std::uint32_t>(node.properties.size());
    top.value = *node.additional;
    end_key(stack);
  }

  // Clears the fields that only the key needed: they would make equal stacks differ.
  void end_key(Stack stack) {
    Frame& top = stack.top;
    ++top.count;
    top.state = 0;
    top.matched = top.low = top.high = top.begin = 0;
    enter(stack, Phase::kColon);
  }
};

void Stacks::step(const Stack& stack, std::vector<Stack>& out, std::size_t begin) {
  const Stack copy = stack;  // `stack` may be an element of `out`, which grows
  Step{{*this, out, begin, static_cast<std::uint8_t>(text.back())}}.run(copy);
}

bool Stacks::complete(Stack stack) const {
  while (stack.top.node != Frame::kDocument) {
    const auto& body = program_->nodes[stack.top.node].body;
    const auto* literals = std::get_if<LiteralsNode>(&body);
    const auto* automaton = std::get_if<AutomatonNode>(&body);
    const auto* rule_node = std::get_if<RuleNode>(&body);
    const bool whole = (literals && literals->texts[stack.top.low].size() == stack.top.matched) ||
                       (automaton && program_->automata[automaton->automaton]->states[stack.top.state].accepting) ||
                       (rule_node && program_->automata[rule_node->automaton]->states[stack.top.state].accepting);
    if (!whole) return false;
    stack = {frames_[stack.below].frame, frames_[stack.below].below};
  }
  return stack.top.phase == Phase::kAfter || program_->allows_empty;
}

std::optional<AutomatonRead> Stacks::automaton(const Stack& stack) const {
  if (stack.top.node == Frame::kDocument) return std::nullopt;
  const auto& body = program_->nodes[stack.top.node].body;
  if (const auto* node = std::get_if<AutomatonNode>(&body)) {
    const std::uint32_t max = node->max_characters;
    return AutomatonRead{node->automaton, max == kNoLimit ? kNoLimit : max - stack.top.count};
  }
  if (const auto* node = std::get_if<StringNode>(&body)) {
    const std::uint32_t max = node->characters.max;
    return AutomatonRead{kStringAutomaton, max == kNoLimit ? kNoLimit : max - stack.top.count};
  }
  if (stack.top.phase == Phase::kName) return AutomatonRead{std::get<ObjectNode>(body).names, kNoLimit};
  return std::nullopt;
}

void Stacks::leave(Stack stack, std::uint32_t characters, std::vector<Stack>& out, std::size_t begin) {
  Step step{{*this, out, begin, 0}};
  const auto& body = program_->nodes[stack.top.node].body;
  if (const auto* node = std::get_if<ObjectNode>(&body)) return step.end_name(*node, stack);
  const auto* node = std::get_if<StringNode>(&body);
  if (!node || stack.top.count + std::uint64_t{characters} >= node->characters.min) step.emit(step.popped(stack));
}

std::vector<std::uint64_t> Stacks::rules_key(const std::vector<Stack>& stacks, std::size_t most) const {
  std::vector<std::uint64_t> key;
  for (Stack stack : stacks) {
    for (; stack.top.node != Frame::kDocument; stack = {frames_[stack.below].frame, frames_[stack.below].below}) {
      if (key.size() == most) return {};
      key.push_back(rule_state(stack));
    }
    key.push_back(~static_cast<std::uint64_t>(stack.top.phase));
  }
  return key;
}

void Stacks::follow(const Stack& stack, std::string_view bytes, std::vector<Stack>& out) {
  const std::size_t length = text.size();
  std::vector<Stack> now = {stack}, next;
  for (const char byte : bytes) {
    text.push_back(byte);
    next.clear();
    for (const Stack& one : now) step(one, next, 0);
    now.swap(next);
  }
  text.resize(length);
  RuleStep merge{*this, out, 0, 0};
  for (const Stack& one : now) merge.emit(one);
}

void Stacks::rewind(const Mark& mark) {
  for (; frames_.size() > mark.frames; frames_.pop_back()) frames_[frames_.back().below].first = frames_.back().later;
  names_.resize(mark.names);
  text.resize(mark.text);
}

// Returns the number of the frame. An equal frame on the same frames below has the same number.
std::uint32_t Stacks::push(const Stack& stack) {
  for (std::uint32_t i = frames_[stack.below].first; i != 0; i = frames_[i].later, ++compared)
    if (frames_[i].frame == stack.top) return i;
  const bool nests = stack.top.node != Frame::kDocument;
  const auto number = static_cast<std::uint32_t>(frames_.size());
  Below& below = frames_[stack.below];
  frames_.push_back({stack.top, stack.below, below.nesting + (nests ? 1 : 0), 0, std::exchange(below.first, number)});
  return number;
}

std::uint32_t Stacks::add_name(std::uint32_t previous, std::size_t hash) {
  for (std::size_t i = std::max<std::size_t>(known_names_, previous + 1); i < names_.size(); ++i) {
    if (names_[i].previous == previous && names_[i].hash == hash) return static_cast<std::uint32_t>(i);
  }
  names_.push_back({previous, hash});
  return static_cast<std::uint32_t>(names_.size() - 1);
}

void Stacks::compact(std::vector<Stack>& stacks) {
  std::vector<std::uint32_t> place(frames_.size(), 0), chain;  // the new number of each frame that is needed
  std::vector<Below> used(1);
  for (Stack& stack : stacks) {
    chain.clear();
    for (std::uint32_t i = stack.below; i != 0 && place[i] == 0; i = frames_[i].below) chain.push_back(i);
    for (auto i = chain.rbegin(); i != chain.rend(); ++i) {
      place[*i] = static_cast<std::uint32_t>(used.size());
      Below frame = frames_[*i];
      frame.below = place[frame.below];
      frame.first = 0;
      frame.later = std::exchange(used[frame.below].first, place[*i]);
      used.push_back(frame);
    }
    stack.below = place[stack.below];
  }
  frames_ = std::move(used);
  known_names_ = names_.size();
}

}  // namespace foe
