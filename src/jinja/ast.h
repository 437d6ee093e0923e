// The syntax tree of a parsed template. Private to this folder.
#pragma once

#include "jinja/value.h"

namespace foe::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Argument {
  std::string name;  // empty if it is positional
  ExprPtr value;
};

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct ListExpr {
  Sequence::Kind kind;
  std::vector<ExprPtr> items;
};
struct DictExpr {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};
struct Unary {
  enum Op { kNegate, kPlus, kNot };
  Op op;
  ExprPtr operand;
};
struct Binary {
  enum Op { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower, kAnd, kOr };
  Op op;
  ExprPtr left, right;
};
struct Concat {
  std::vector<ExprPtr> parts;
};
enum class Comparison { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };
struct Compare {
  ExprPtr first;
  std::vector<std::pair<Comparison, ExprPtr>> rest;
};
struct Conditional {
  ExprPtr condition, then, otherwise;  // if `otherwise` is null, the value is undefined
};
struct Attribute {
  ExprPtr object;
  std::string name;
};
struct Item {
  ExprPtr object, index;
};
struct Slice {
  ExprPtr object, start, stop, step;  // the last three may be null
};
struct Call {
  ExprPtr callee;
  std::vector<Argument> arguments;
};
struct FilterExpr {
  std::string name;
  ExprPtr input;
  std::vector<Argument> arguments;
};
struct TestExpr {
  std::string name;
  ExprPtr input;
  std::vector<Argument> arguments;
};

struct Expr {
  using Node = std::variant<Literal, Name, ListExpr, DictExpr, Unary, Binary, Concat, Compare, Conditional, Attribute,
                            Item, Slice, Call, FilterExpr, TestExpr>;
  Node node;
  int line;
  int nesting;
};

struct Stmt;
using Block = std::vector<Stmt>;

struct TextStmt {
  std::string text;
};
struct Output {
  ExprPtr value;
};
struct If {
  std::vector<std::pair<ExprPtr, Block>> branches;
  Block otherwise;
};
// The target of an assignment: one name, a member of a namespace, or as many names as the value has items.
struct Target {
  std::vector<std::string> names;
  bool unpack = false;
  std::string member;
};
struct For {
  Target target;
  ExprPtr items, filter;  // filter may be null
  Block body, otherwise;
  bool recursive = false;  // whether `loop` can be called in it, with further items
};
struct Set {
  Target target;
  ExprPtr value;
};
struct SetBlock {
  Target target;
  ExprPtr value;  // filters of kFiltered, or null
  Block body;
};
struct Scoped {  // {% generation %}, which only has a scope of its own
  Block body;
};
// The variable that stands for the text of a filter or set block. No template can name it.
inline constexpr const char* kFiltered = "";
struct FilterBlock {
  ExprPtr value;  // filters of kFiltered
  Block body;
};
struct With {
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Block body;
};
struct Break {};
struct Continue {};
struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with their defaults, or null
  Block body;
  // Whether the body reads the variables of these names, which then are the block of a call block, and a dict and a
  // tuple of the arguments that no parameter takes. A macro that does not read them refuses what would be there.
  bool takes_caller = false, takes_kwargs = false, takes_varargs = false;
};
// {% call macro(...) %}, whose block is the macro `caller` to what is called.
struct CallBlock {
  ExprPtr call;  // a Call
  Macro caller;
};

struct Stmt {
  std::variant<TextStmt, Output, If, For, Set, SetBlock, Scoped, FilterBlock, With, Break, Continue, Macro, CallBlock>
      node;
  int line;
};

}  // namespace foe::jinja
