// str(), repr() and json.dumps() of Python.
#include <algorithm>
#include <charconv>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/strings.h"
#include "jinja/value.h"
#include "text/utf8.h"

namespace foe::jinja {
namespace {

// Returns the shortest text that is read as the same number, in the form that Python chooses, 1234.5 or 1e+16.
std::string number_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[40];
  const double size = std::abs(number);
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = fixed ? std::chars_format::fixed : std::chars_format::scientific;
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, number, format).ptr);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

void print_escaped(std::string_view text, TextBuilder& out) {
  const bool single = text.find('\'') == std::string_view::npos || text.find('"') != std::string_view::npos;
  const char quote = single ? '\'' : '"';
  out.add({&quote, 1});
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = read_utf8(text, i);
    const std::string_view character = text.substr(i, step.size);
    i += step.size;
    const unsigned code = step.code;
    if (step.kind != Utf8Step::kValid) {
      out.add(character);
    } else if (code == '\\' || code == static_cast<unsigned char>(quote)) {
      out.add("\\");
      out.add(character);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out.add(code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t");
    } else if (is_printable(step.code)) {
      out.add(character);
    } else {
      out.add(code < 0x100     ? fmt::format("\\x{:02x}", code)
              : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                               : fmt::format("\\U{:08x}", code));
    }
  }
  out.add({&quote, 1});
}

void print_repr(const Value& value, TextBuilder& out);

void print_items(const std::vector<Value>& items, TextBuilder& out) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.add(", ");
    print_repr(items[i], out);
  }
}

void print_sequence(const Value& value, const Sequence& sequence, TextBuilder& out) {
  switch (sequence.kind) {
    case Sequence::kList:
      out.add("[");
      print_items(sequence.items, out);
      return out.add("]");
    case Sequence::kTuple:
      out.add("(");
      print_items(sequence.items, out);
      return out.add(sequence.items.size() == 1 ? ",)" : ")");
    case Sequence::kKeys:
    case Sequence::kValues:
    case Sequence::kItems:
      out.add(type_name(value));
      out.add("([");
      print_items(sequence.items, out);
      return out.add("])");
    default:
      wrong_type("printing", "a value that has a text (use the filter list)", value);
  }
}

void print_repr(const Value& value, TextBuilder& out) {
  if (const std::string* text = as_text(value)) {
    if (is_markup(value)) out.add("Markup(");
    print_escaped(*text, out);
    if (is_markup(value)) out.add(")");
  } else if (is_undefined(value)) {
    out.add("Undefined");
  } else if (is_none(value)) {
    out.add("None");
  } else if (const bool* boolean = as<bool>(value)) {
    out.add(*boolean ? "True" : "False");
  } else if (const auto* integer = as<std::int64_t>(value)) {
    out.add(fmt::format("{}", *integer));
  } else if (const double* number = as<double>(value)) {
    out.add(number_text(*number));
  } else if (const Sequence* sequence = as_sequence(value)) {
    print_sequence(value, *sequence, out);
  } else if (const Dict* dict = as_dict(value)) {
    out.add("{");
    for (std::size_t i = 0; i < dict->entries.size(); ++i) {
      if (i > 0) out.add(", ");
      print_repr(key_value(dict->entries[i].first), out);
      out.add(": ");
      print_repr(dict->entries[i].second, out);
    }
    out.add("}");
  } else {
    wrong_type("printing", "a value that has a text", value);
  }
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, TextBuilder& out, Budget& budget) : style_(style), out_(out), budget_(budget) {}

  void write(const Value& value, int level) {
    if (const std::string* text = as_text(value)) return write_text(*text);
    if (is_none(value)) return out_.add("null");
    if (const bool* boolean = as<bool>(value)) return out_.add(*boolean ? "true" : "false");
    if (const auto* integer = as<std::int64_t>(value)) return out_.add(fmt::format("{}", *integer));
    if (const double* number = as<double>(value)) return write_number(*number);
    if (const Dict* dict = as_dict(value)) return write_dict(*dict, level);
    const Sequence* sequence = as_sequence(value);
    if (!sequence || sequence->kind > Sequence::kTuple) wrong_type("tojson", "what JSON can express", value);
    write_group('[', ']', sequence->items.size(), level, [&](std::size_t i) { write(sequence->items[i], level + 1); });
  }

 private:
  template <typename Member>
  void write_group(char open, char close, std::size_t size, int level, const Member& member) {
    out_.add({&open, 1});
    for (std::size_t i = 0; i < size; ++i) {
      if (i > 0) out_.add(style_.item_separator);
      new_line(level + 1);
      member(i);
    }
    if (size > 0) new_line(level);
    out_.add({&close, 1});
  }

  void new_line(int level) {
    if (!style_.indent) return;
    out_.add("\n");
    for (int i = 0; i < level; ++i) out_.add(*style_.indent);
  }

  void write_dict(const Dict& dict, int level) {
    std::vector<const std::pair<Text, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::sort(entries.begin(), entries.end(),
                [&](auto* a, auto* b) { return less(key_value(a->first), key_value(b->first), budget_); });
    }
    write_group('{', '}', entries.size(), level, [&](std::size_t i) {
      write_text(to_text(key_value(entries[i]->first), budget_));
      out_.add(style_.key_separator);
      write(entries[i]->second, level + 1);
    });
  }

  void write_number(double number) {
    if (std::isfinite(number)) return out_.add(number_text(number));
    out_.add(std::isnan(number) ? "NaN" : number < 0 ? "-Infinity" : "Infinity");
  }

  void write_text(std::string_view text) {
    out_.add("\"");
    for (std::size_t i = 0; i < text.size();) {
      const Utf8Step step = read_utf8(text, i);
      write_character(text.substr(i, step.size), step.code);
      i += step.size;
    }
    out_.add("\"");
  }

  void write_character(std::string_view character, std::uint32_t code) {
    constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    if (const auto at = character.size() == 1 ? kEscaped.find(character[0]) : std::string_view::npos;
        at != std::string_view::npos) {
      out_.add("\\");
      out_.add(kLetters.substr(at, 1));
    } else if (code >= 0x20 && (!style_.ensure_ascii || code < 0x7f)) {
      out_.add(character);
    } else if (code >= 0x10000) {
      const unsigned rest = code - 0x10000;
      out_.add(fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff)));
    } else {
      out_.add(fmt::format("\\u{:04x}", code));
    }
  }

  const JsonStyle& style_;
  TextBuilder& out_;
  Budget& budget_;
};

}  // namespace

void print(const Value& value, TextBuilder& out) {
  if (const std::string* text = as_text(value)) return out.add(*text);
  if (!is_undefined(value)) print_repr(value, out);
}

std::string to_text(const Value& value, Budget& budget) {
  TextBuilder out(budget);
  print(value, out);
  return out.take();
}

std::string to_repr(const Value& value, Budget& budget) {
  TextBuilder out(budget);
  print_repr(value, out);
  return out.take();
}

std::string to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  TextBuilder out(budget);
  JsonWriter(style, out, budget).write(value, 0);
  return out.take();
}

}  // namespace foe::jinja
