#include "jinja/parser.h"

#include <algorithm>

#include "base/error.h"
#include "jinja/expressions.h"

namespace foe::jinja {
namespace {

constexpr int kMaxBlocks = 50;  // the deepest nesting of blocks

class TemplateParser {
 public:
  explicit TemplateParser(std::string_view source) : tokens_(tokenize(source)) {}

  Block run() {
    Block result = block({});
    if (tokens_.peek().kind != Token::kEnd) tokens_.refuse("the end of the template");
    return result;
  }

 private:
  // Reads statements up to one of the tags `ends`, of which it takes "{%" and the name, or up to the end of the
  // template.
  Block block(std::initializer_list<std::string_view> ends) {
    if (++level_ > kMaxBlocks) tokens_.refuse(fmt::format("at most {} blocks within each other", kMaxBlocks));
    Block result;
    while (tokens_.peek().kind != Token::kEnd) {
      const Token token = tokens_.next();
      if (token.kind == Token::kText) {
        result.push_back({TextStmt{token.text}, token.line});
      } else if (token.kind == Token::kOutputBegin) {
        result.push_back({Output{parse_tuple(tokens_)}, token.line});
        tokens_.expect(Token::kOutputEnd, "}}");
      } else {
        tag_ = tokens_.peek();
        if (tag_.kind == Token::kName && std::find(ends.begin(), ends.end(), tag_.text) != ends.end()) break;
        const int line = tag_.line;
        auto node = statement();
        tokens_.expect(Token::kBlockEnd, "%}");
        result.push_back({std::move(node), line});
      }
    }
    if (ends.size() > 0) {
      if (tokens_.peek().kind == Token::kEnd) tokens_.refuse(fmt::format("{{% {} %}}", *(ends.end() - 1)));
      tokens_.next();
    }
    --level_;
    return result;
  }

  // Reads the rest of a statement's first tag, its blocks, and its last tag without "%}".
  decltype(Stmt::node) statement() {
    const std::string name = tokens_.expect_name("a statement");
    if (name == "if") return if_statement();
    if (name == "for") return for_statement();
    if (name == "set") return set_statement();
    if (name == "macro") return macro_statement();
    if (name == "call") return call_statement();
    if (name == "filter") return filter_statement();
    if (name == "with") return with_statement();
    if (name == "generation") return Scoped{function_body("endgeneration")};
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail("line {}: expected '{}' inside a loop", tag_.line, name);
      if (name == "break") return Break{};
      return Continue{};
    }
    fail("line {}: the statement '{}' is not supported in a chat template", tag_.line, name.substr(0, 60));
  }

  Block block_of(std::initializer_list<std::string_view> ends) {
    tokens_.expect(Token::kBlockEnd, "%}");
    return block(ends);
  }

  // Reads a block from which "break" does not reach a loop outside.
  Block function_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block body = block_of({end});
    loops_ = loops;
    return body;
  }

  FilterBlock filter_statement() {
    FilterBlock result;
    result.value = parse_filters(tokens_, kFiltered);
    result.body = function_body("endfilter");
    return result;
  }

  With with_statement() {
    With result;
    while (tokens_.peek().kind != Token::kBlockEnd) {
      if (!result.assignments.empty() && !tokens_.accept_sign(",")) tokens_.refuse("','");
      Target to;
      to.names.push_back(assignable_name());
      tokens_.expect_sign("=");
      result.assignments.emplace_back(std::move(to), parse_expression(tokens_));
    }
    result.body = block_of({"endwith"});
    return result;
  }

  If if_statement() {
    If result;
    do {
      ExprPtr condition = parse_plain_tuple(tokens_);
      result.branches.emplace_back(std::move(condition), block_of({"elif", "else", "endif"}));
    } while (tag_.text == "elif");
    if (tag_.text == "else") result.otherwise = block_of({"endif"});
    return result;
  }

  For for_statement() {
    For result;
    result.target = target();
    if (!result.target.member.empty()) tokens_.refuse("the name of a loop variable");
    for (const std::string& name : result.target.names) {
      if (name == "loop") tokens_.refuse("a loop variable that is not called 'loop'");
    }
    if (!tokens_.accept_word("in")) tokens_.refuse("'in'");
    result.items = parse_plain_tuple(tokens_);
    if (tokens_.accept_word("if")) result.filter = parse_expression(tokens_);
    result.recursive = tokens_.accept_word("recursive");
    ++loops_;
    result.body = block_of({"else", "endfor"});
    --loops_;
    if (tag_.text == "else") result.otherwise = block_of({"endfor"});
    return result;
  }

  decltype(Stmt::node) set_statement() {
    Target to = target();
    if (tokens_.accept_sign("=")) return Set{std::move(to), parse_tuple(tokens_)};
    if (to.unpack) tokens_.refuse("'='");
    ExprPtr value = tokens_.accept_sign("|") ? parse_filters(tokens_, kFiltered) : nullptr;
    return SetBlock{std::move(to), std::move(value), block_of({"endset"})};
  }

  // Reads a target: a name, namespace.member, or names with commas between them, in parentheses or not.
  Target target() {
    Target result;
    const bool parentheses = tokens_.accept_sign("(");
    do {
      if (!result.names.empty() && tokens_.peek().kind != Token::kName) break;  // there may be a comma at the end
      result.names.push_back(assignable_name());
      if (tokens_.peek().is(Token::kName, "in")) break;
    } while (tokens_.accept_sign(",") && (result.unpack = true));
    if (parentheses) tokens_.expect_sign(")");
    if (!result.unpack && tokens_.accept_sign(".")) result.member = tokens_.expect_name("a member's name");
    return result;
  }

  std::string assignable_name() {
    for (const std::string_view constant : {"true", "True", "false", "False", "none", "None"}) {
      if (tokens_.peek().text == constant) tokens_.refuse("a name to assign to");
    }
    return tokens_.expect_name("a name to assign to");
  }

  Macro macro_statement() {
    Macro macro;
    macro.name = assignable_name();
    parameters(macro);
    macro_body(macro, "endmacro");
    return macro;
  }

  CallBlock call_statement() {
    CallBlock result;
    result.caller.name = "caller";
    if (tokens_.peek().is(Token::kOperator, "(")) parameters(result.caller);
    result.call = parse_expression(tokens_);
    if (!std::holds_alternative<Call>(result.call->node)) tokens_.refuse("a call before the end of the tag");
    macro_body(result.caller, "endcall");
    return result;
  }

  void parameters(Macro& macro) {
    tokens_.expect_sign("(");
    while (!tokens_.accept_sign(")")) {
      if (!macro.parameters.empty()) tokens_.expect_sign(",");
      std::string name = assignable_name();
      ExprPtr fallback = tokens_.accept_sign("=") ? parse_expression(tokens_) : nullptr;
      if (fallback == nullptr && !macro.parameters.empty() && macro.parameters.back().second != nullptr) {
        tokens_.refuse("a default value, as a parameter before it has one");
      }
      macro.parameters.emplace_back(std::move(name), std::move(fallback));
    }
  }

  void macro_body(Macro& macro, std::string_view end) {
    const auto outside = std::exchange(tokens_.variables_read(), {});
    macro.body = function_body(end);
    const auto takes = [&](std::string_view name) {
      if (!tokens_.variables_read().contains(name)) return false;
      for (const auto& [parameter, fallback] : macro.parameters) {
        if (parameter != name) continue;
        if (name == "caller" && fallback == nullptr) tokens_.refuse("a default value of the parameter 'caller'");
        return false;
      }
      return true;
    };
    macro.takes_caller = takes("caller");
    macro.takes_kwargs = takes("kwargs");
    macro.takes_varargs = takes("varargs");
    tokens_.variables_read().insert(outside.begin(), outside.end());
  }

  TokenStream tokens_;
  Token tag_{Token::kEnd, "", 0};  // the name in the last block tag
  int level_ = 0;
  int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) {
  return TemplateParser(source).run();
}

}  // namespace foe::jinja
