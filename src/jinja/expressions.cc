#include "jinja/expressions.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/error.h"

namespace foe::jinja {
namespace {

constexpr std::size_t kMaxArguments = 60;  // of one call, because map("map", "map", ...) recurses once for each

int nesting_of(const ExprPtr& expr) {
  return expr == nullptr ? 0 : expr->nesting;
}
int nesting_of(const Argument& argument) {
  return nesting_of(argument.value);
}
template <typename T, typename U>
int nesting_of(const std::pair<T, U>& pair);
template <typename T>
int nesting_of(const std::vector<T>& list) {
  int nesting = 0;
  for (const T& item : list) nesting = std::max(nesting, nesting_of(item));
  return nesting;
}
int nesting_of(Comparison) {
  return 0;
}
template <typename T, typename U>
int nesting_of(const std::pair<T, U>& pair) {
  return std::max(nesting_of(pair.first), nesting_of(pair.second));
}

// A recursive descent parser, from the loosest binding to the tightest, in Jinja's order: "~" binds tighter than "+",
// and "**" groups from the left.
class Parser {
 public:
  explicit Parser(TokenStream& tokens) : tokens_(tokens) {}

  ExprPtr expression() {
    const Level level(*this);
    const int line = tokens_.peek().line;
    ExprPtr result = either();
    while (tokens_.accept_word("if")) {
      ExprPtr condition = either();
      ExprPtr otherwise = tokens_.accept_word("else") ? expression() : nullptr;
      const int nesting = std::max({nesting_of(condition), nesting_of(result), nesting_of(otherwise)});
      result = make(line, Conditional{std::move(condition), std::move(result), std::move(otherwise)}, nesting);
    }
    return result;
  }

  ExprPtr either() { return chain(&Parser::both, {{"or", Binary::kOr}}, Token::kName); }

  // Reads items up to the end of a tuple. One item without a comma is not a tuple.
  ExprPtr tuple(ExprPtr (Parser::*item)()) {
    const int line = tokens_.peek().line;
    std::vector<ExprPtr> items;
    bool comma = false;
    while (!ends_tuple()) {
      items.push_back((this->*item)());
      if (!tokens_.accept_sign(",")) break;
      comma = true;
    }
    if (items.size() == 1 && !comma) return std::move(items[0]);
    if (items.empty()) tokens_.refuse("an expression");
    const int nesting = nesting_of(items);
    return make(line, ListExpr{Sequence::kTuple, std::move(items)}, nesting);
  }

  // Reads filters of a variable, as `name|name(argument)` without what they are of.
  ExprPtr filters_of(const std::string& variable) {
    ExprPtr value = filter(make(tokens_.peek().line, Name{variable}, 0));
    while (tokens_.accept_sign("|")) value = filter(std::move(value));
    return value;
  }

 private:
  // Counts the depth of the parser's own recursion.
  struct Level {
    explicit Level(Parser& a_parser) : parser(a_parser) {
      if (++parser.level_ > kMaxNesting) parser.refuse_nesting();
    }
    ~Level() { --parser.level_; }
    Parser& parser;
  };

  [[noreturn]] void refuse_nesting() const {
    tokens_.refuse(fmt::format("expressions nested at most {} deep", kMaxNesting));
  }

  // Makes an expression. `inside` is the nesting of its deepest part.
  ExprPtr make(int line, Expr::Node node, int inside) {
    if (inside >= kMaxNesting) refuse_nesting();
    return std::make_unique<const Expr>(Expr{std::move(node), line, inside + 1});
  }

  bool ends_tuple() const {
    const Token& token = tokens_.peek();
    return token.kind == Token::kOutputEnd || token.kind == Token::kBlockEnd || token.is(Token::kOperator, ")");
  }

  // Reads operands with operators of one precedence between them, which group from the left.
  ExprPtr chain(ExprPtr (Parser::*operand)(), std::initializer_list<std::pair<std::string_view, Binary::Op>> operators,
                Token::Kind kind = Token::kOperator) {
    ExprPtr left = (this->*operand)();
    for (;;) {
      const Token& token = tokens_.peek();
      const auto* found = std::find_if(operators.begin(), operators.end(),
                                       [&](const auto& candidate) { return token.is(kind, candidate.first); });
      if (found == operators.end()) return left;
      const int line = tokens_.next().line;
      ExprPtr right = (this->*operand)();
      const int inside = std::max(left->nesting, right->nesting);
      left = make(line, Binary{found->second, std::move(left), std::move(right)}, inside);
    }
  }

  ExprPtr both() { return chain(&Parser::negation, {{"and", Binary::kAnd}}, Token::kName); }

  ExprPtr negation() {
    if (!tokens_.peek().is(Token::kName, "not")) return comparison();
    const Level level(*this);
    const int line = tokens_.next().line;
    return unary(line, Unary::kNot, negation());
  }

  ExprPtr unary(int line, Unary::Op op, ExprPtr operand) {
    const int inside = operand->nesting;
    return make(line, Unary{op, std::move(operand)}, inside);
  }

  std::optional<Comparison> comparison_sign() {
    constexpr std::pair<std::string_view, Comparison> kSigns[] = {
        {"==", Comparison::kEqual},     {"!=", Comparison::kNotEqual}, {"<", Comparison::kLess},
        {"<=", Comparison::kLessEqual}, {">", Comparison::kGreater},   {">=", Comparison::kGreaterEqual}};
    for (const auto& [sign, op] : kSigns) {
      if (tokens_.accept_sign(sign)) return op;
    }
    if (tokens_.accept_word("in")) return Comparison::kIn;
    if (!tokens_.peek().is(Token::kName, "not") || !tokens_.peek(1).is(Token::kName, "in")) return std::nullopt;
    tokens_.next(), tokens_.next();
    return Comparison::kNotIn;
  }

  ExprPtr comparison() {
    const int line = tokens_.peek().line;
    ExprPtr first = sum();
    std::vector<std::pair<Comparison, ExprPtr>> rest;
    while (const auto op = comparison_sign()) rest.emplace_back(*op, sum());
    if (rest.empty()) return first;
    const int inside = std::max(nesting_of(first), nesting_of(rest));
    return make(line, Compare{std::move(first), std::move(rest)}, inside);
  }

  ExprPtr sum() { return chain(&Parser::concat, {{"+", Binary::kAdd}, {"-", Binary::kSubtract}}); }

  ExprPtr concat() {
    const int line = tokens_.peek().line;
    std::vector<ExprPtr> parts;
    do {
      parts.push_back(product());
    } while (tokens_.accept_sign("~"));
    if (parts.size() == 1) return std::move(parts[0]);
    const int inside = nesting_of(parts);
    return make(line, Concat{std::move(parts)}, inside);
  }

  ExprPtr product() {
    return chain(
        &Parser::power,
        {{"*", Binary::kMultiply}, {"/", Binary::kDivide}, {"//", Binary::kFloorDivide}, {"%", Binary::kModulo}});
  }

  ExprPtr power() { return chain(&Parser::filtered, {{"**", Binary::kPower}}); }

  // Reads a signed value with its filters and tests: -x|abs means (-x)|abs.
  ExprPtr filtered() {
    ExprPtr value = signed_value();
    for (;;) {
      if (tokens_.accept_sign("|")) {
        value = filter(std::move(value));
      } else if (tokens_.peek().is(Token::kName, "is")) {
        value = test(std::move(value));
      } else if (tokens_.peek().is(Token::kOperator, "(")) {
        value = call(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExprPtr signed_value() {
    const bool minus = tokens_.peek().is(Token::kOperator, "-");
    if (!minus && !tokens_.peek().is(Token::kOperator, "+")) return postfix(primary());
    const Level level(*this);
    const int line = tokens_.next().line;
    return postfix(unary(line, minus ? Unary::kNegate : Unary::kPlus, signed_value()));
  }

  ExprPtr filter(ExprPtr input) {
    const int line = tokens_.peek().line;
    std::string name = tokens_.expect_name("a filter's name");
    std::vector<Argument> args;
    if (tokens_.peek().is(Token::kOperator, "(")) args = arguments();
    const int inside = std::max(nesting_of(input), nesting_of(args));
    return make(line, FilterExpr{std::move(name), std::move(input), std::move(args)}, inside);
  }

  // Reads a test: x is defined, x is not divisibleby 3, x is divisibleby(3).
  ExprPtr test(ExprPtr input) {
    const int line = tokens_.next().line;
    const bool negated = tokens_.accept_word("not");
    std::string name = tokens_.expect_name("a test's name");
    std::vector<Argument> args;
    if (tokens_.peek().is(Token::kOperator, "(")) {
      args = arguments();
    } else if (begins_test_argument()) {
      args.push_back({"", postfix(primary())});
    }
    const int inside = std::max(nesting_of(input), nesting_of(args));
    ExprPtr result = make(line, TestExpr{std::move(name), std::move(input), std::move(args)}, inside);
    return negated ? unary(line, Unary::kNot, std::move(result)) : std::move(result);
  }

  bool begins_test_argument() const {
    const Token& token = tokens_.peek();
    if (token.is(Token::kName, "is")) tokens_.refuse("the end of the test, as tests do not follow each other");
    if (token.kind == Token::kName) return token.text != "else" && token.text != "or" && token.text != "and";
    return token.kind == Token::kString || token.kind == Token::kInteger || token.kind == Token::kFloat ||
           token.is(Token::kOperator, "[") || token.is(Token::kOperator, "{");
  }

  ExprPtr postfix(ExprPtr value) {
    for (;;) {
      if (tokens_.peek().is(Token::kOperator, ".")) {
        value = attribute(std::move(value));
      } else if (tokens_.peek().is(Token::kOperator, "[")) {
        value = subscript(std::move(value));
      } else if (tokens_.peek().is(Token::kOperator, "(")) {
        value = call(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExprPtr attribute(ExprPtr object) {
    const int line = tokens_.next().line, inside = object->nesting;
    if (tokens_.peek().kind == Token::kInteger) {
      ExprPtr index = primary();
      return make(line, Item{std::move(object), std::move(index)}, inside);
    }
    return make(line, Attribute{std::move(object), tokens_.expect_name("an attribute's name")}, inside);
  }

  // Reads x[i] or x[i:j:k], of which parts may be left out.
  ExprPtr subscript(ExprPtr object) {
    const int line = tokens_.next().line;
    ExprPtr parts[3];
    bool slice = false;
    for (int i = 0; i < 3; ++i) {
      const Token& token = tokens_.peek();
      if (!token.is(Token::kOperator, ":") && !token.is(Token::kOperator, "]")) parts[i] = expression();
      if (i == 2 || !tokens_.accept_sign(":")) break;
      slice = true;
    }
    if (!slice && parts[0] == nullptr) tokens_.refuse("an index");
    tokens_.expect_sign("]");
    int inside = object->nesting;
    for (const ExprPtr& part : parts) inside = std::max(inside, nesting_of(part));
    if (!slice) return make(line, Item{std::move(object), std::move(parts[0])}, inside);
    return make(line, Slice{std::move(object), std::move(parts[0]), std::move(parts[1]), std::move(parts[2])}, inside);
  }

  ExprPtr call(ExprPtr callee) {
    const int line = tokens_.peek().line;
    std::vector<Argument> args = arguments();
    const int inside = std::max(nesting_of(callee), nesting_of(args));
    return make(line, Call{std::move(callee), std::move(args)}, inside);
  }

  std::vector<Argument> arguments() {
    std::vector<Argument> result;
    tokens_.expect_sign("(");
    while (!tokens_.accept_sign(")")) {
      if (!result.empty()) {
        tokens_.expect_sign(",");
        if (tokens_.accept_sign(")")) break;
      }
      if (result.size() >= kMaxArguments) tokens_.refuse(fmt::format("at most {} arguments", kMaxArguments));
      Argument argument;
      if (tokens_.peek().kind == Token::kName && tokens_.peek(1).is(Token::kOperator, "=")) {
        argument.name = tokens_.next().text;
        tokens_.next();
      } else if (!result.empty() && !result.back().name.empty()) {
        tokens_.refuse("name=value, as an argument before it has a name");
      }
      argument.value = expression();
      result.push_back(std::move(argument));
    }
    return result;
  }

  ExprPtr primary() {
    const Token& token = tokens_.peek();
    switch (token.kind) {
      case Token::kName:
        return name();
      case Token::kString:
        return string();
      case Token::kInteger:
      case Token::kFloat:
        return number();
      default:
        break;
    }
    const int line = token.line;
    if (tokens_.accept_sign("(")) {
      const bool empty = tokens_.accept_sign(")");
      if (empty) return make(line, ListExpr{Sequence::kTuple, {}}, 0);
      ExprPtr inside = tuple(&Parser::expression);
      tokens_.expect_sign(")");
      return inside;
    }
    if (tokens_.accept_sign("[")) return list(line);
    if (tokens_.accept_sign("{")) return dict(line);
    tokens_.refuse("an expression");
  }

  ExprPtr name() {
    const Token token = tokens_.next();
    if (token.text == "true" || token.text == "True") return make(token.line, Literal{true}, 0);
    if (token.text == "false" || token.text == "False") return make(token.line, Literal{false}, 0);
    if (token.text == "none" || token.text == "None") return make(token.line, Literal{None{}}, 0);
    tokens_.variables_read().insert(token.text);
    return make(token.line, Name{token.text}, 0);
  }

  ExprPtr string() {
    const int line = tokens_.peek().line;
    std::string text;
    while (tokens_.peek().kind == Token::kString) text += tokens_.next().text;
    return make(line, Literal{std::make_shared<const std::string>(std::move(text))}, 0);
  }

  ExprPtr number() {
    const Token token = tokens_.peek();
    if (token.kind == Token::kFloat) {
      tokens_.next();
      return make(token.line, Literal{std::strtod(token.text.c_str(), nullptr)}, 0);
    }
    std::int64_t integer = 0;
    const char* end = token.text.data() + token.text.size();
    if (std::from_chars(token.text.data(), end, integer).ec != std::errc()) tokens_.refuse("an integer of 64 bits");
    tokens_.next();
    return make(token.line, Literal{integer}, 0);
  }

  ExprPtr list(int line) {
    std::vector<ExprPtr> items;
    while (!tokens_.accept_sign("]")) {
      items.push_back(expression());
      if (!tokens_.peek().is(Token::kOperator, "]")) tokens_.expect_sign(",");
    }
    const int inside = nesting_of(items);
    return make(line, ListExpr{Sequence::kList, std::move(items)}, inside);
  }

  ExprPtr dict(int line) {
    std::vector<std::pair<ExprPtr, ExprPtr>> entries;
    while (!tokens_.accept_sign("}")) {
      ExprPtr key = expression();
      tokens_.expect_sign(":");
      entries.emplace_back(std::move(key), expression());
      if (!tokens_.peek().is(Token::kOperator, "}")) tokens_.expect_sign(",");
    }
    const int inside = nesting_of(entries);
    return make(line, DictExpr{std::move(entries)}, inside);
  }

  TokenStream& tokens_;
  int level_ = 0;
};

}  // namespace

ExprPtr parse_expression(TokenStream& tokens) {
  return Parser(tokens).expression();
}
ExprPtr parse_tuple(TokenStream& tokens) {
  return Parser(tokens).tuple(&Parser::expression);
}
ExprPtr parse_plain_tuple(TokenStream& tokens) {
  return Parser(tokens).tuple(&Parser::either);
}
ExprPtr parse_filters(TokenStream& tokens, const std::string& variable) {
  return Parser(tokens).filters_of(variable);
}
ExprPtr parse_plain_expression(TokenStream& tokens) {
  return Parser(tokens).either();
}

}  // namespace foe::jinja
