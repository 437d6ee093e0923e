#include "grammar/grammar.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "grammar/nodes.h"
#include "grammar/plain_texts.h"
#include "grammar/rule_compiler.h"
#include "grammar/rule_mask.h"
#include "grammar/schema_compiler.h"
#include "grammar/stacks.h"
#include "grammar/token_runs.h"

namespace foe {

// Keeps the last masks of a grammar of rules by what they depend on: walking the vocabulary takes long where rules call
// others at most bytes.
class MaskCache {
 public:
  // Returns the mask; null if it is not here.
  const std::vector<std::uint64_t>* find(const std::vector<std::uint64_t>& key) const {
    const auto found = masks_.find(key);
    return found == masks_.end() ? nullptr : &found->second;
  }
  void add(std::vector<std::uint64_t> key, std::span<const std::uint64_t> mask) {
    if (masks_.size() >= kMaxMasks) masks_.clear();
    masks_.emplace(std::move(key), std::vector(mask.begin(), mask.end()));
  }

 private:
  static constexpr std::size_t kMaxMasks = 256;  // they take some megabytes
  std::map<std::vector<std::uint64_t>, std::vector<std::uint64_t>> masks_;
};

class Grammar {
 public:
  explicit Grammar(GrammarProgram compiled) : program(std::move(compiled)) {}
  const GrammarProgram program;
  mutable TokenRuns runs;
  mutable MaskCache masks;
};

namespace {

constexpr std::string_view kAnyObject = R"({"type":"object"})";

GrammarProgram compile_rule(const Constraint& constraint) {
  switch (constraint.kind) {
    case Constraint::Kind::kRegex:
      return compile_regex(constraint.rule);
    case Constraint::Kind::kChoice:
      return compile_choice(constraint.rule);
    case Constraint::Kind::kGrammar:
      return compile_rules(constraint.rule);
    case Constraint::Kind::kJsonObject:
      return compile_schema(kAnyObject, constraint.open_objects);
    default:
      return compile_schema(constraint.rule, constraint.open_objects);
  }
}

// Computes a mask of JSON.
class MaskFiller {
 public:
  MaskFiller(const Grammar& grammar, const TokenTable& table, Stacks& stacks, std::span<std::uint64_t> bits)
      : grammar_(grammar), table_(table), stacks_(stacks), bits_(bits) {}

  // Adds the tokens that may follow with the stack.
  void add(const Stack& stack) {
    const Stacks::Mark mark = stacks_.mark();
    const auto read = stacks_.automaton(stack);
    if (!read) return walk(0, {stack});
    const TokenRun& run = grammar_.runs.get(table_, read->automaton, *grammar_.program.automata[read->automaton],
                                            stack.top.state, read->characters);
    for (std::size_t i = 0; i < run.bits.size(); ++i) bits_[i] |= run.bits[i];
    for (const TokenRun::Exit& exit : run.exits) {
      stacks_.text += table_.path(exit.node);
      std::vector<Stack> behind;
      stacks_.leave(stack, exit.characters, behind, 0);
      walk(exit.node, std::move(behind));
      stacks_.rewind(mark);
    }
  }

 private:
  // Adds the tokens at and below a node of the trie. `open` has the stacks at that node.
  void walk(std::uint32_t node, std::vector<Stack> open) {
    if (open.empty()) return;
    const auto nodes = table_.nodes();
    table_.mark(node, bits_);
    struct Level {
      std::size_t begin, end;  // which elements of `open` are its stacks
      Stacks::Mark mark;
    };
    std::vector<Level> levels = {{0, open.size(), stacks_.mark()}};  // by depth below `node`
    for (std::uint32_t i = node + 1; i < nodes[node].end;) {
      levels.resize(nodes[i].depth - nodes[node].depth);
      const Level level = levels.back();
      open.resize(level.end);
      stacks_.rewind(level.mark);
      stacks_.text.push_back(static_cast<char>(nodes[i].byte));
      for (std::size_t k = level.begin; k < level.end; ++k) stacks_.step(open[k], open, level.end);
      if (open.size() == level.end) {
        i = nodes[i].end;
        continue;
      }
      table_.mark(i, bits_);
      levels.push_back({level.end, open.size(), stacks_.mark()});
      ++i;
    }
    stacks_.rewind(levels.front().mark);
  }

  const Grammar& grammar_;
  const TokenTable& table_;
  Stacks& stacks_;
  std::span<std::uint64_t> bits_;
};

}  // namespace

struct GrammarMatcher::State {
  explicit State(const GrammarProgram& program) : stacks(program) {}
  Stacks stacks;  // computing a mask makes steps and takes them back
  std::vector<Stack> open = {Stack{}};
};

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTable> table)
    : grammar_(std::move(grammar)), table_(std::move(table)), state_(std::make_unique<State>(grammar_->program)) {}

GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&& other) noexcept = default;
GrammarMatcher::GrammarMatcher(const GrammarMatcher& other)
    : grammar_(other.grammar_), table_(other.table_), state_(std::make_unique<State>(*other.state_)) {}

GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher other) noexcept {
  grammar_.swap(other.grammar_);
  table_.swap(other.table_);
  state_.swap(other.state_);
  return *this;
}

void GrammarMatcher::fill_mask(std::span<std::uint64_t> bits) const {
  FOE_CHECK(bits.size() >= table_->mask_words(), "{} {}", bits.size(), table_->mask_words());
  std::ranges::fill(bits, 0);
  const std::span mask = bits.first(table_->mask_words());
  Stacks& stacks = state_->stacks;
  if (!grammar_->program.of_rules) {
    for (const Stack& one : state_->open) MaskFiller(*grammar_, *table_, stacks, mask).add(one);
    return;
  }
  constexpr std::size_t kMaxKey = 1024;
  std::vector<std::uint64_t> key = stacks.rules_key(state_->open, kMaxKey);
  if (!key.empty()) key.push_back(reinterpret_cast<std::uintptr_t>(table_.get()));
  if (const auto* known = grammar_->masks.find(key)) {
    std::ranges::copy(*known, mask.begin());
  } else if (RuleMask(grammar_->program, *table_, stacks, mask).fill(state_->open) && !key.empty()) {
    grammar_->masks.add(std::move(key), mask);
  }
}

void GrammarMatcher::accept(std::int32_t token) {
  Stacks& stacks = state_->stacks;
  const std::string_view bytes = table_->bytes(token);
  std::vector<Stack> result;
  // As in fill_mask(), so that the same stacks are given up if there are too many: those of JSON each by itself, those
  // of rules together.
  if (grammar_->program.of_rules) {
    if (!bytes.empty()) result = state_->open;
    for (const char byte : bytes) result = stacks.step_rules(result, static_cast<std::uint8_t>(byte));
  } else if (!bytes.empty()) {
    for (const Stack& one : state_->open) stacks.follow(one, bytes, result);
  }
  stacks.text += bytes;
  stacks.compact(result);
  state_->open = std::move(result);
}

bool GrammarMatcher::complete() const {
  return std::any_of(state_->open.begin(), state_->open.end(),
                     [&](const Stack& stack) { return state_->stacks.complete(stack); });
}

bool GrammarMatcher::dead() const {
  return state_->open.empty();
}

std::shared_ptr<const Grammar> compile_grammar(const Constraint& constraint) {
  FOE_CHECK(constraint.kind != Constraint::Kind::kNone, "no constraint");
  return std::make_shared<const Grammar>(compile_rule(constraint));
}

}  // namespace foe
