#include "jinja/formatting.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "jinja/filters.h"
#include "jinja/operators.h"
#include "jinja/strings.h"
#include "text/utf8.h"

namespace foe::jinja {
namespace {

constexpr std::size_t kMaxWidth = 10'000;

bool digit(char c) {
  return c >= '0' && c <= '9';
}

// A format specification: [[fill]align][sign][#][0][width][,][.precision][type].
struct Spec {
  std::string fill = " ";
  char align = '\0', sign = '-', grouping = '\0', type = '\0';
  bool alternate = false, zero = false;
  std::size_t width = 0;
  int precision = -1;
};

class SpecReader {
 public:
  explicit SpecReader(std::string_view text) : text_(text) {}

  Spec read() {
    Spec spec;
    const std::size_t first = text_.empty() ? 0 : character_size(text_, 0);
    if (first < text_.size() && is_align(text_[first])) {
      spec.fill = text_.substr(0, first);
      spec.align = text_[first];
      at_ = first + 1;
    } else if (is_align(next())) {
      spec.align = text_[at_++];
    }
    if (next() == '+' || next() == '-' || next() == ' ') spec.sign = text_[at_++];
    if (next() == '#') spec.alternate = ++at_;
    if (next() == '0') spec.zero = ++at_;
    spec.width = number(kMaxWidth, 0);
    if (next() == ',' || next() == '_') spec.grouping = text_[at_++];
    if (next() == '.') {
      ++at_;
      if (!digit(next())) refuse();
      spec.precision = static_cast<int>(number(300, 0));
    }
    if (at_ < text_.size()) spec.type = text_[at_++];
    if (at_ < text_.size()) refuse();
    return spec;
  }

 private:
  static bool is_align(char c) { return c == '<' || c == '>' || c == '=' || c == '^'; }
  char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  std::size_t number(std::size_t most, std::size_t value) {
    for (; digit(next()); ++at_) value = std::min(value * 10 + static_cast<std::size_t>(next() - '0'), most + 1);
    if (value > most) fail("format: expected a width or precision of at most {}, got a larger one", most);
    return value;
  }
  [[noreturn]] void refuse() const {
    fail("format: expected a format specification, got '{}'", std::string(text_.substr(0, 40)));
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

std::string padded(const std::string& text, const Spec& spec, char align, Budget& budget) {
  const std::size_t size = count_characters(text, budget);
  if (size >= spec.width) return text;
  const std::size_t missing = spec.width - size;
  const std::size_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  budget.memory(missing * spec.fill.size());
  std::string result;
  for (std::size_t i = 0; i < left; ++i) result += spec.fill;
  result += text;
  for (std::size_t i = left; i < missing; ++i) result += spec.fill;
  return result;
}

// Puts separators between groups of digits at the front of `digits`, which may go on with a fraction.
std::string grouped(const std::string& digits, char separator, std::size_t group) {
  const auto other = [](char c) { return !std::isxdigit(static_cast<unsigned char>(c)); };
  const auto whole = static_cast<std::size_t>(std::find_if(digits.begin(), digits.end(), other) - digits.begin());
  std::string result;
  for (std::size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % group == 0) result += separator;
    result += digits[i];
  }
  return result + digits.substr(whole);
}

// Adds sign and padding to the digits of a number.
std::string finished(std::string digits, bool negative, const std::string& prefix, const Spec& spec, Budget& budget) {
  if (spec.grouping != '\0') {
    if (spec.zero) fail("format: expected no 0 beside , or _, which together are not supported");
    const bool decimal = prefix.empty();
    if (!decimal && spec.grouping == ',') fail("format: expected no , for this type");
    digits = grouped(digits, spec.grouping, decimal ? 3 : 4);
  }
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  const char align = spec.align != '\0' ? spec.align : spec.zero ? '=' : '>';
  if (align != '=') return padded(sign + prefix + digits, spec, align, budget);
  Spec inner = spec;
  if (spec.align == '\0') inner.fill = "0";
  inner.width -= std::min(spec.width, sign.size() + prefix.size());
  return sign + prefix + padded(digits, inner, '>', budget);
}

// The form without a type: as g, but with a digit behind the point, for which an exponent comes one digit earlier.
std::string general(double size, int precision) {
  if (!std::isfinite(size)) return fmt::format("{:g}", size);
  std::string scientific = fmt::format("{:.{}e}", size, precision - 1);
  const std::size_t mark = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(mark + 1));
  if (exponent < -4 || exponent >= precision - 1) {
    std::string mantissa = scientific.substr(0, mark);
    if (mantissa.find('.') != mantissa.npos) mantissa.erase(mantissa.find_last_not_of('0') + 1);
    if (mantissa.ends_with('.')) mantissa.pop_back();
    return mantissa + scientific.substr(mark);
  }
  const std::string digits = fmt::format("{:.{}g}", size, precision);
  return digits.find('.') == digits.npos ? digits + ".0" : digits;
}

std::string format_float(double number, const Spec& spec, Budget& budget) {
  const bool negative = std::signbit(number) && !std::isnan(number);
  const double size = std::abs(number);
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  std::string digits;
  switch (spec.type) {
    case 'f':
    case 'F':
      digits = fmt::format("{:.{}f}", size, precision);
      break;
    case '%':
      digits = fmt::format("{:.{}f}", size * 100, precision) + "%";
      break;
    case 'e':
    case 'E':
      digits = fmt::format("{:.{}e}", size, precision);
      break;
    case 'g':
    case 'G':
      digits = fmt::format("{:.{}g}", size, precision);
      break;
    case '\0':
      if (spec.precision < 0) {
        digits = to_text(size, budget);
      } else {
        digits = general(size, std::max(precision, 1));
      }
      break;
    default:
      fail("format: expected a type for a number with a fraction, got '{}'", spec.type);
  }
  if (spec.alternate) fail("format: expected no # for a number with a fraction, which is not supported");
  if (std::isupper(static_cast<unsigned char>(spec.type)))
    std::transform(digits.begin(), digits.end(), digits.begin(), [](unsigned char c) { return std::toupper(c); });
  return finished(std::move(digits), negative, "", spec, budget);
}

std::string format_integer(std::int64_t number, const Spec& spec, Budget& budget) {
  const std::uint64_t size = number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
  std::string digits, prefix;
  switch (spec.type) {
    case '\0':
    case 'd':
    case 'i':
      digits = fmt::format("{}", size);
      break;
    case 'b':
      digits = fmt::format("{:b}", size);
      prefix = "0b";
      break;
    case 'o':
      digits = fmt::format("{:o}", size);
      prefix = "0o";
      break;
    case 'x':
      digits = fmt::format("{:x}", size);
      prefix = "0x";
      break;
    case 'X':
      digits = fmt::format("{:X}", size);
      prefix = "0X";
      break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
    case '%':
      return format_float(static_cast<double>(number), spec, budget);
    default:
      fail("format: expected a type for an integer, got '{}'", spec.type);
  }
  if (spec.precision >= 0) fail("format: expected no precision for an integer, got {}", spec.precision);
  if (spec.grouping == ',' && !prefix.empty()) fail("format: expected no , for this type");
  return finished(std::move(digits), number < 0, spec.alternate ? prefix : "", spec, budget);
}

std::string first_characters(const std::string& text, int count, Budget& budget) {
  if (count < 0) return text;
  budget.work(text.size());
  std::size_t at = 0;
  for (; count > 0 && at < text.size(); --count) at += character_size(text, at);
  return text.substr(0, at);
}

std::string format_text(const std::string& text, const Spec& spec, Budget& budget) {
  if ((spec.type != '\0' && spec.type != 's') || spec.sign != '-' || spec.alternate || spec.grouping != '\0' ||
      spec.align == '=')
    fail("format: expected a specification of a text, got one of a number");
  Spec with_zero = spec;
  if (spec.zero && spec.align == '\0') with_zero.fill = "0";
  return padded(first_characters(text, spec.precision, budget), with_zero, spec.align == '\0' ? '<' : spec.align,
                budget);
}

std::string format_value(const Value& value, const std::string& spec_text, Budget& budget) {
  if (spec_text.empty()) return to_text(value, budget);
  const Spec spec = SpecReader(spec_text).read();
  if (const std::string* text = as_text(value)) return format_text(*text, spec, budget);
  if (const double* number = as<double>(value)) return format_float(*number, spec, budget);
  if (const auto integer = as_integer(value)) return format_integer(*integer, spec, budget);
  wrong_type("format", "a text or a number for a format specification", value);
}

// Reads replacement fields, also those within a format specification.
class FieldFormatter {
 public:
  FieldFormatter(const Arguments& arguments, Budget& budget) : arguments_(arguments), budget_(budget) {}

  std::string format(std::string_view text, int depth) {
    TextBuilder out(budget_);
    for (std::size_t i = 0; i < text.size();) {
      const char c = text[i];
      if (c != '{' && c != '}') {
        const std::size_t end = std::min(text.find_first_of("{}", i), text.size());
        out.add(text.substr(i, end - i));
        i = end;
      } else if (i + 1 < text.size() && text[i + 1] == c && depth == 0) {
        out.add({&c, 1});
        i += 2;
      } else if (c == '}') {
        fail("format: expected a {{ before a }}, got none");
      } else {
        const std::size_t end = field_end(text, i);
        out.add(field(text.substr(i + 1, end - i - 1), depth));
        i = end + 1;
      }
    }
    return out.take();
  }

 private:
  static std::size_t field_end(std::string_view text, std::size_t begin) {
    int open = 0;
    for (std::size_t i = begin; i < text.size(); ++i) {
      if (text[i] == '{') ++open;
      if (text[i] == '}' && --open == 0) return i;
    }
    fail("format: expected a }} behind a {{, got none");
  }

  std::string field(std::string_view text, int depth) {
    if (depth > 1) fail("format: expected fields within each other at most twice, got more");
    const std::size_t name_end = std::min(text.find_first_of("!:"), text.size());
    Value value = named(text.substr(0, name_end));
    std::size_t at = name_end;
    if (at < text.size() && text[at] == '!') {
      const char conversion = at + 1 < text.size() ? text[at + 1] : '\0';
      if ((conversion != 's' && conversion != 'r') || (at + 2 < text.size() && text[at + 2] != ':'))
        fail("format: expected the conversion !s or !r, got '{}'", std::string(text.substr(at, 10)));
      value = make_text(conversion == 's' ? to_text(value, budget_) : to_repr(value, budget_), budget_);
      at += 2;
    }
    const std::string spec = at < text.size() ? format(text.substr(at + 1), depth + 1) : "";
    return format_value(value, spec, budget_);
  }

  // Returns what a field's name means: an argument, and then attributes and items of it.
  Value named(std::string_view name) {
    const std::size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, end));
    for (std::size_t at = end; at < name.size();) {
      const bool item = name[at] == '[';
      const std::size_t stop = item ? name.find(']', at) : std::min(name.find_first_of(".[", at + 1), name.size());
      if (stop == name.npos || stop == at + 1) fail("format: expected a name or an item behind . or [, got none");
      const std::string part(name.substr(at + 1, stop - at - 1));
      const auto index = item && digit(part[0]) ? parse_integer(part) : std::nullopt;
      value = item ? get_item(value, index ? Value(*index) : make_text(part, budget_), budget_)
                   : get_attribute(value, part);
      at = item ? stop + 1 : stop;
      if (item && at < name.size() && name[at] != '.' && name[at] != '[') fail("format: expected . or [ behind a ]");
    }
    return value;
  }

  const Value& argument(std::string_view name) {
    if (name.empty() || digit(name[0])) {
      if (numbering_ != '\0' && numbering_ != (name.empty() ? 'a' : 'm'))
        fail("format: expected all fields with numbers, or none, got both");
      numbering_ = name.empty() ? 'a' : 'm';
      const auto index = name.empty() ? static_cast<std::int64_t>(next_++) : parse_integer(name).value_or(-1);
      if (index < 0 || index >= static_cast<std::int64_t>(arguments_.positional.size()))
        fail("format: expected a value for each field, got {} for a field with the index {}",
             arguments_.positional.size(), index);
      return arguments_.positional[static_cast<std::size_t>(index)];
    }
    for (const auto& [given, value] : arguments_.named)
      if (given == name) return value;
    fail("format: expected a value for '{}', got none", std::string(name.substr(0, 60)));
  }

  const Arguments& arguments_;
  Budget& budget_;
  std::size_t next_ = 0;
  char numbering_ = '\0';  // 'a': automatic, 'm': by numbers
};

// Reads the conversions of a format for %.
class PercentFormatter {
 public:
  PercentFormatter(std::string_view format, const Value& values, Budget& budget)
      : format_(format), values_(values), tuple_(as_sequence(values)), budget_(budget) {
    if (tuple_ && tuple_->kind != Sequence::kTuple) tuple_ = nullptr;
  }

  std::string run() {
    TextBuilder out(budget_);
    while (at_ < format_.size()) {
      const std::size_t percent = std::min(format_.find('%', at_), format_.size());
      out.add(format_.substr(at_, percent - at_));
      at_ = percent + 1;
      if (percent < format_.size()) out.add(conversion());
    }
    const std::size_t given = tuple_ ? tuple_->items.size() : as_dict(values_) ? used_ : 1;
    if (used_ < given) fail("%: expected as many conversions as values, got {} for {}", used_, given);
    return out.take();
  }

 private:
  char next() const { return at_ < format_.size() ? format_[at_] : '\0'; }

  Value value() {
    if (!tuple_ && used_ == 0) return ++used_, values_;
    if (!tuple_ || used_ >= tuple_->items.size()) fail("%: expected a value for each conversion, got too few");
    return tuple_->items[used_++];
  }

  std::string conversion() {
    std::optional<Value> by_name;
    if (next() == '(') {
      const std::size_t end = format_.find(')', at_);
      if (end == format_.npos) fail("%: expected a ) behind a name, got none");
      const Dict* dict = as_dict(values_);
      const Value* found = dict ? dict->find(format_.substr(at_ + 1, end - at_ - 1)) : nullptr;
      if (!found) fail("%: expected a value of the name '{}', got none", std::string(format_.substr(at_ + 1, 40)));
      by_name = *found;
      at_ = end + 1;
    }
    Spec spec;
    bool left = false;
    for (; std::string_view("#0- +").find(next()) != std::string_view::npos && next() != '\0'; ++at_) {
      if (next() == '#') spec.alternate = true;
      if (next() == '0') spec.zero = true;
      if (next() == '-') left = true;
      if (next() == '+' || (next() == ' ' && spec.sign != '+')) spec.sign = next();
    }
    spec.width = number();
    if (next() == '.') {
      ++at_;
      spec.precision = static_cast<int>(std::min<std::size_t>(number(), 300));
    }
    while (next() == 'h' || next() == 'l' || next() == 'L') ++at_;
    spec.type = next();
    if (spec.type == '\0') fail("%: expected a conversion behind a %, got the end of the text");
    ++at_;
    if (spec.type == '%') return "%";
    if (left) spec.align = '<', spec.zero = false;
    return converted(by_name ? *by_name : value(), spec, left);
  }

  std::size_t number() {
    std::size_t result = 0;
    if (next() == '*') fail("%: expected a width in digits (* is not supported)");
    for (; digit(next()); ++at_) result = std::min(result * 10 + static_cast<std::size_t>(next() - '0'), kMaxWidth + 1);
    if (result > kMaxWidth) fail("%: expected a width of at most {}, got a larger one", kMaxWidth);
    return result;
  }

  std::string converted(const Value& value, Spec spec, bool left) {
    const char type = spec.type;
    if (type == 's' || type == 'r') {
      Spec plain{.align = left ? '<' : '>', .width = spec.width};
      const std::string text = type == 's' ? to_text(value, budget_) : to_repr(value, budget_);
      return padded(first_characters(text, spec.precision, budget_), plain, plain.align, budget_);
    }
    const auto number = as_number(value);
    if (!number) wrong_type(fmt::format("%{}", type), "a number", value);
    if (std::string_view("eEfFgG").find(type) != std::string_view::npos) return format_float(*number, spec, budget_);
    auto integer = as_integer(value);
    if (std::string_view("diu").find(type) != std::string_view::npos) {
      if (!integer && std::isfinite(*number) && std::abs(*number) < 0x1p63)
        integer = static_cast<std::int64_t>(*number);
      spec.type = 'd';
    }
    if (!integer || std::string_view("dxXo").find(spec.type) == std::string_view::npos || spec.precision >= 0)
      fail("%: expected a conversion that is supported, s, r, d, x, o, e, f or g, for its value, got '{}'", type);
    return format_integer(*integer, spec, budget_);
  }

  std::string_view format_;
  const Value& values_;
  const Sequence* tuple_;
  Budget& budget_;
  std::size_t at_ = 0, used_ = 0;
};

}  // namespace

std::string format_fields(std::string_view format, const Arguments& arguments, Budget& budget) {
  return FieldFormatter(arguments, budget).format(format, 0);
}

std::string format_percent(std::string_view format, const Value& values, Budget& budget) {
  return PercentFormatter(format, values, budget).run();
}

}  // namespace foe::jinja
