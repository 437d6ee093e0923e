#include "jinja/evaluator.h"

#include <algorithm>
#include <deque>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/methods.h"
#include "jinja/operators.h"
#include "jinja/scope.h"

namespace foe::jinja {
namespace {

constexpr int kMaxDepth = 1000;  // expressions and blocks that are being evaluated: macros may call themselves
constexpr std::size_t kMaxOutput = std::size_t{1} << 24;  // bytes

enum class Flow { kOn, kBreak, kContinue };

class Evaluator {
 public:
  explicit Evaluator(std::time_t now) : now_(now) {}

  std::string run(const Block& program, const nlohmann::ordered_json& variables) {
    try {
      define_functions();
      for (const auto& [name, value] : variables.items()) scope_->variables[name] = from_json(value, budget_);
      run_block(program);
    } catch (const Error& error) {
      fail("line {}: {}", line_, error.what());
    }
    return out_.take();
  }

 private:
  // Counts the depth of recursion, so that the stack cannot overflow. (Python's limit is 1000 frames.)
  struct Depth {
    explicit Depth(Evaluator& an_evaluator) : evaluator(an_evaluator) {
      if (++evaluator.depth_ > kMaxDepth)
        fail("expected calls and blocks nested at most {} deep, got deeper recursion", kMaxDepth);
      evaluator.budget_.work(Budget::kNodeWork);
    }
    ~Depth() { --evaluator.depth_; }
    Evaluator& evaluator;
  };

  // A scope whose variables end with the block.
  struct Inner {
    Inner(Evaluator& an_evaluator, std::shared_ptr<Scope> parent)
        : evaluator(an_evaluator), outer(std::move(an_evaluator.scope_)) {
      evaluator.scope_ = std::make_shared<Scope>(Scope{{}, std::move(parent)});
    }
    ~Inner() { evaluator.scope_ = std::move(outer); }
    Evaluator& evaluator;
    std::shared_ptr<Scope> outer;
  };

  void define_functions() {
    scope_->variables = {{"range", Function::kRange},
                         {"dict", Function::kDict},
                         {"namespace", Function::kNamespace},
                         {"raise_exception", Function::kRaiseException},
                         {"strftime_now", Function::kStrftimeNow}};
  }

  // -- statements -------------------------------------------------------------------------------------------------

  Flow run_block(const Block& block) {
    for (const Stmt& statement : block) {
      const Depth depth(*this);
      line_ = statement.line;
      const Flow flow = std::visit([&](const auto& node) { return run(node); }, statement.node);
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  // Runs `print`, and returns what it prints instead of printing it.
  template <typename Print>
  Value captured(const Print& print) {
    TextBuilder outside(budget_);
    std::swap(outside, out_);
    print();
    std::swap(outside, out_);
    return outside.value();
  }

  void write(std::string_view text) {
    out_.add(text);
    if (out_.text().size() > kMaxOutput)
      fail("expected a text of at most {} bytes from the template, got a longer one", kMaxOutput);
  }

  Flow run(const TextStmt& text) {
    write(text.text);
    return Flow::kOn;
  }

  Flow run(const Output& output) {
    const Value value = evaluate(*output.value);
    const std::string* text = as_text(value);
    write(text != nullptr ? *text : to_text(value, budget_));
    return Flow::kOn;
  }

  Flow run(const If& branches) {
    for (const auto& [condition, block] : branches.branches) {
      if (truthy(evaluate(*condition))) return run_block(block);
    }
    return run_block(branches.otherwise);
  }

  Flow run(const For& loop) { return run(loop, evaluate(*loop.items), /*depth=*/0); }

  Flow run(const For& loop, const Value& items, int depth) {
    const auto sequence = std::get<SequencePtr>(make_sequence(filtered(loop, items), budget_));
    const auto state = std::make_shared<LoopState>(LoopState{.sequence = sequence, .depth = depth});
    if (loop.recursive) state->recursive = &loop, state->scope = scope_;
    bool finished_one = false;  // Jinja runs `else` if no iteration came to its end
    for (; state->index < sequence->items.size(); ++state->index) {
      const Inner inner(*this, scope_);
      scope_->variables["loop"] = std::shared_ptr<const LoopState>(state);
      scope_->assign(loop.target, sequence->items[state->index], budget_);
      const Flow flow = run_block(loop.body);
      if (flow == Flow::kBreak) break;
      if (flow == Flow::kOn) finished_one = true;
    }
    if (finished_one) return Flow::kOn;
    const Inner inner(*this, scope_);
    return run_block(loop.otherwise);
  }

  std::vector<Value> filtered(const For& loop, const Value& all) {
    std::vector<Value> items = iterate(all, budget_);
    if (loop.filter == nullptr) return items;
    std::erase_if(items, [&](const Value& item) {
      const Inner inner(*this, scope_);
      scope_->assign(loop.target, item, budget_);
      return !truthy(evaluate(*loop.filter));
    });
    return items;
  }

  Flow run(const Set& set) {
    scope_->assign(set.target, evaluate(*set.value), budget_);
    return Flow::kOn;
  }

  Flow run(const SetBlock& set) {
    Value text;
    {
      const Inner inner(*this, scope_);
      Flow flow = Flow::kOn;
      text = captured([&] { flow = run_block(set.body); });
      if (flow != Flow::kOn) return flow;
    }
    scope_->assign(set.target, set.value == nullptr ? text : filtered(*set.value, text), budget_);
    return Flow::kOn;
  }

  Flow run(const Scoped& scoped) {
    const Inner inner(*this, scope_);
    return run_block(scoped.body);
  }

  Flow run(const FilterBlock& filter) {
    Value text;
    {
      const Inner inner(*this, scope_);
      text = captured([&] { run_block(filter.body); });
    }
    write(to_text(filtered(*filter.value, text), budget_));
    return Flow::kOn;
  }

  Value filtered(const Expr& filters, const Value& text) {
    const Inner inner(*this, scope_);
    scope_->variables[kFiltered] = text;
    return evaluate(filters);
  }

  Flow run(const With& with) {
    std::vector<Value> values;
    for (const auto& [target, expr] : with.assignments) values.push_back(evaluate(*expr));
    const Inner inner(*this, scope_);
    for (std::size_t i = 0; i < values.size(); ++i) scope_->assign(with.assignments[i].first, values[i], budget_);
    return run_block(with.body);
  }

  Flow run(const Break&) { return Flow::kBreak; }
  Flow run(const Continue&) { return Flow::kContinue; }

  Flow run(const Macro& macro) {
    scope_->variables[macro.name] = closure(macro);
    return Flow::kOn;
  }

  Value closure(const Macro& macro) const { return std::make_shared<const Closure>(Closure{&macro, scope_}); }

  Flow run(const CallBlock& block) {
    const Value value = evaluate(std::get<Call>(block.call->node), closure(block.caller));
    const std::string* text = as_text(value);
    if (text == nullptr) wrong_type("a call block", "a macro that is called", value);
    write(*text);
    return Flow::kOn;
  }

  // -- expressions ------------------------------------------------------------------------------------------------

  Value evaluate(const Expr& expr) {
    const Depth depth(*this);
    line_ = expr.line;
    return std::visit([&](const auto& node) { return evaluate(node); }, expr.node);
  }
  Value evaluate_or_none(const ExprPtr& expr) { return expr == nullptr ? None{} : evaluate(*expr); }

  Value evaluate(const Literal& literal) { return literal.value; }
  Value evaluate(const Name& name) { return scope_->look_up(name.name); }

  Value evaluate(const ListExpr& list) {
    std::vector<Value> items;
    for (const ExprPtr& item : list.items) items.push_back(evaluate(*item));
    return make_sequence(std::move(items), budget_, list.kind);
  }

  Value evaluate(const DictExpr& dict) {
    std::vector<std::pair<Text, Value>> entries;
    for (const auto& [key_expr, value_expr] : dict.entries) {
      const Value key = evaluate(*key_expr);
      Text text = key_of(key);
      if (text == nullptr) wrong_type("a dict", "texts and integers as keys", key);
      entries.emplace_back(std::move(text), evaluate(*value_expr));
    }
    return make_dict(std::move(entries), budget_);
  }

  Value evaluate(const Unary& unary) {
    const Value value = evaluate(*unary.operand);
    if (unary.op == Unary::kNot) return !truthy(value);
    if (unary.op == Unary::kNegate) return negate(value);
    if (const auto integer = as_integer(value)) return *integer;
    if (!as_number(value)) wrong_type("a sign", "a number", value);
    return value;
  }

  Value evaluate(const Binary& binary_expr) {
    Value left = evaluate(*binary_expr.left);
    if (binary_expr.op == Binary::kAnd) return truthy(left) ? evaluate(*binary_expr.right) : left;
    if (binary_expr.op == Binary::kOr) return truthy(left) ? left : evaluate(*binary_expr.right);
    return binary(binary_expr.op, left, evaluate(*binary_expr.right), budget_);
  }

  Value evaluate(const Concat& concat) {
    TextBuilder text(budget_);
    for (const ExprPtr& part : concat.parts) print(evaluate(*part), text);
    return text.value();
  }

  Value evaluate(const Compare& comparison) {
    Value left = evaluate(*comparison.first);
    for (const auto& [op, operand] : comparison.rest) {
      Value right = evaluate(*operand);
      if (!compare(op, left, right, budget_)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value evaluate(const Conditional& conditional) {
    if (truthy(evaluate(*conditional.condition))) return evaluate(*conditional.then);
    if (conditional.otherwise != nullptr) return evaluate(*conditional.otherwise);
    return undefined("the condition of an inline if without else is false");
  }

  Value evaluate(const Attribute& attribute) { return get_attribute(evaluate(*attribute.object), attribute.name); }

  Value evaluate(const Item& item) {
    const Value object = evaluate(*item.object);
    return get_item(object, evaluate(*item.index), budget_);
  }

  Value evaluate(const Slice& slice) {
    const Value object = evaluate(*slice.object);
    const Value start = evaluate_or_none(slice.start), stop = evaluate_or_none(slice.stop);
    return get_slice(object, start, stop, evaluate_or_none(slice.step), budget_);
  }

  Value evaluate(const FilterExpr& filter) {
    const Value input = evaluate(*filter.input);
    return apply_filter(filter.name, input, evaluate(filter.arguments), budget_);
  }

  Value evaluate(const TestExpr& test) {
    const Value input = evaluate(*test.input);
    return apply_test(test.name, input, evaluate(test.arguments), budget_);
  }

  Arguments evaluate(const std::vector<Argument>& arguments) {
    Arguments result;
    for (const Argument& argument : arguments) {
      if (argument.name.empty()) {
        result.positional.push_back(evaluate(*argument.value));
      } else {
        result.named.emplace_back(argument.name, evaluate(*argument.value));
      }
    }
    return result;
  }

  // -- calls ------------------------------------------------------------------------------------------------------

  Value evaluate(const Call& call) { return evaluate(call, std::nullopt); }

  Value evaluate(const Call& call, const std::optional<Value>& caller) {
    const int line = line_;
    const Value callee = evaluate(*call.callee);
    Arguments arguments = evaluate(call.arguments);
    if (caller) arguments.named.emplace_back("caller", *caller);
    line_ = line;
    if (const auto* method = as<std::shared_ptr<const Method>>(callee)) {
      return call_method(**method, arguments, budget_);
    }
    if (const auto* macro = as<std::shared_ptr<const Closure>>(callee)) return call_macro(**macro, arguments);
    if (const auto* loop = as<std::shared_ptr<const LoopState>>(callee)) return call_loop(**loop, arguments);
    if (const auto* function = as<Function>(callee)) return call_function(*function, arguments);
    wrong_type("a call", "a function", callee);
  }

  // Calls a recursive loop with further items.
  Value call_loop(const LoopState& loop, const Arguments& arguments) {
    if (loop.recursive == nullptr) fail("expected a loop with 'recursive', to call it, got one without");
    const Bound args("loop", arguments, {"iterable"}, 1);
    const Depth depth(*this);
    const Inner inner(*this, living(loop.scope, "loop"));
    return captured([&] { run(*loop.recursive, args[0], loop.depth + 1); });
  }

  Value call_macro(const Closure& closure, const Arguments& arguments) {
    const Macro& macro = *closure.macro;
    const Depth depth(*this);
    const Inner inner(*this, living(closure.scope, macro.name));
    scope_->variables = bind_macro(macro, arguments, budget_);
    for (const auto& [name, fallback] : macro.parameters) {
      if (scope_->variables.count(name) > 0) continue;
      scope_->variables[name] =
          fallback != nullptr ? evaluate(*fallback) : undefined(fmt::format("the parameter '{}' was not given", name));
    }
    return captured([&] { run_block(macro.body); });
  }

  Value call_function(Function function, const Arguments& arguments) {
    switch (function) {
      case Function::kRange:
        return make_range(arguments, budget_);
      case Function::kDict:
        return make_dict(arguments, budget_);
      case Function::kNamespace:
        return call_namespace(arguments);
      case Function::kRaiseException:
        fail("{}", to_text(Bound("raise_exception", arguments, {"message"}, 1)[0], budget_));
      case Function::kStrftimeNow:
        return format_time(arguments, now_, budget_);
    }
    fail("expected a function");
  }

  Value call_namespace(const Arguments& arguments) {
    const Value members = make_dict(arguments, budget_);
    budget_.memory(sizeof(Namespace));
    Namespace& space = namespaces_.emplace_back();
    for (const auto& [name, value] : as_dict(members)->entries) space.members[*name] = value;
    return &space;
  }

  std::time_t now_;
  Budget budget_;
  std::deque<Namespace> namespaces_;  // owned here, because they may refer to each other
  std::shared_ptr<Scope> scope_ = std::make_shared<Scope>();
  TextBuilder out_{budget_};
  int line_ = 1;
  int depth_ = 0;
};

}  // namespace

std::string evaluate(const Block& program, const nlohmann::ordered_json& variables, std::time_t now) {
  return Evaluator(now).run(program, variables);
}

}  // namespace foe::jinja
