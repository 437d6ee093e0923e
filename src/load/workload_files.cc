#include "load/workload_files.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <initializer_list>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "load/ascii.h"

namespace foe {

using nlohmann::json;

namespace {

constexpr std::size_t kMaxRows = 10'000'000;
constexpr int kMaxTokens = 1 << 28;

// Calls row(line, "FILE line N") for every line that is not empty.
void for_each_line(std::string_view text, const std::string& source,
                   const std::function<void(std::string_view, const std::string&)>& row) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (number > kMaxRows) fail("{}: expected at most {} lines, got more", source, kMaxRows);
    if (!line.empty()) row(line, fmt::format("{} line {}", source, number));
  }
}

json parse_object(std::string_view line, const std::string& source) {
  json object = parse_strict_json(line, source);
  if (!object.is_object()) fail("{}: expected a JSON object, got {}", source, excerpt(object));
  return object;
}

std::string string_of(const json& object, const char* key, const std::string& source) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string())
    fail("{}: expected a string \"{}\", got {}", source, key, found == object.end() ? "none" : excerpt(*found));
  return found->get<std::string>();
}

int tokens_of(double value, const std::string& name, const std::string& source) {
  if (!(value >= 0 && value <= kMaxTokens) || value != std::floor(value))
    fail("{}: expected {} from 0 to {}, got {}", source, name, kMaxTokens, value);
  return static_cast<int>(value);
}

// --- traces ---

// The names that known traces have for one column, in lower case.
using Names = std::initializer_list<const char*>;
constexpr Names kTime = {"timestamp", "arrival_time", "time"};
constexpr Names kInput = {"contexttokens", "request tokens", "input_length", "input_tokens", "prompt_tokens"};
constexpr Names kOutput = {"generatedtokens", "response tokens", "output_length", "output_tokens", "completion_tokens"};

bool is_one_of(const std::string& name, Names names) {
  return std::ranges::find(names, lower_ascii(name)) != names.end();
}

double parse_number(std::string_view text, const std::string& name, const std::string& source) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    fail("{}: expected a number as {}, got '{}'", source, name, shorten(std::string(text)));
  return value;
}

// Returns seconds, from a number or a date such as "2023-11-16 18:17:03.9799600".
double parse_time(std::string_view text, const std::string& source) {
  if (text.find('-', 1) == text.npos || text.size() < 19) return parse_number(text, "the time", source);
  int year, month, day, hour, minute, used = 0;
  const std::string date(text.substr(0, 17));
  if (std::sscanf(date.c_str(), "%4d-%2d-%2d%*1[ T]%2d:%2d:%n", &year, &month, &day, &hour, &minute, &used) != 5 ||
      used != 17)
    fail("{}: expected a time as seconds or YYYY-MM-DD HH:MM:SS, got '{}'", source, shorten(std::string(text)));
  const std::chrono::year_month_day ymd{std::chrono::year(year), std::chrono::month(month), std::chrono::day(day)};
  std::string_view seconds = text.substr(17);
  if (const auto zone = seconds.find_first_of("+Z"); zone != seconds.npos) seconds = seconds.substr(0, zone);
  const double second = parse_number(seconds, "seconds", source);
  if (!ymd.ok() || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second >= 61)
    fail("{}: expected a date and time that exist, got '{}'", source, shorten(std::string(text)));
  const auto days = std::chrono::sys_days(ymd).time_since_epoch().count();
  return static_cast<double>(days) * 86400.0 + hour * 3600 + minute * 60 + second;
}

std::vector<std::string> split(std::string_view line) {
  std::vector<std::string> cells;
  while (true) {
    const auto comma = line.find(',');
    cells.emplace_back(line.substr(0, comma));
    if (comma == line.npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

std::size_t column(const std::vector<std::string>& header, Names names, const std::string& source) {
  const auto found = std::ranges::find_if(header, [&](const std::string& name) { return is_one_of(name, names); });
  if (found == header.end())
    fail("{}: expected a column with one of the names {}, got {}", source, fmt::join(names, ", "),
         shorten(fmt::format("{}", fmt::join(header, ", "))));
  return static_cast<std::size_t>(found - header.begin());
}

std::vector<Lengths> parse_csv(std::string_view text, const std::string& source) {
  std::vector<Lengths> rows;
  std::vector<std::string> header;
  std::size_t time = 0, input = 0, output = 0;
  for_each_line(text, source, [&](std::string_view line, const std::string& place) {
    const std::vector<std::string> cells = split(line);
    if (header.empty()) {
      header = cells;
      time = column(header, kTime, place), input = column(header, kInput, place),
      output = column(header, kOutput, place);
      return;
    }
    if (cells.size() != header.size())
      fail("{}: expected {} cells as in the header, got {}", place, header.size(), cells.size());
    const auto count = [&](std::size_t c) {
      return tokens_of(parse_number(cells[c], header[c], place), header[c], place);
    };
    rows.push_back({.input = count(input), .output = count(output), .at = parse_time(cells[time], place)});
  });
  return rows;
}

std::vector<Lengths> parse_jsonl_trace(std::string_view text, const std::string& source) {
  std::vector<Lengths> rows;
  for_each_line(text, source, [&](std::string_view line, const std::string& place) {
    const json object = parse_object(line, place);
    const auto number = [&](Names names) {
      for (const auto& [key, value] : object.items())
        if (is_one_of(key, names) && value.is_number()) return value.get<double>();
      fail("{}: expected a number under one of the names {}, got none", place, fmt::join(names, ", "));
    };
    rows.push_back({.input = tokens_of(number(kInput), "input tokens", place),
                    .output = tokens_of(number(kOutput), "output tokens", place),
                    .at = number(kTime) / 1000});
  });
  return rows;
}

}  // namespace

std::vector<FilePrompt> parse_custom(std::string_view text, const std::string& source) {
  std::vector<FilePrompt> prompts;
  for_each_line(text, source, [&](std::string_view line, const std::string& place) {
    const json object = parse_object(line, place);
    FilePrompt& prompt = prompts.emplace_back();
    prompt.prompt = string_of(object, "prompt", place);
    if (const auto found = object.find("output_tokens"); found != object.end() && !found->is_null()) {
      if (!found->is_number()) fail("{}: expected a number \"output_tokens\", got {}", place, excerpt(*found));
      prompt.output_tokens = tokens_of(found->get<double>(), "output_tokens", place);
    }
  });
  return prompts;
}

std::vector<FilePrompt> parse_sharegpt(std::string_view text, const std::string& source) {
  const json all = parse_strict_json(text, source);
  if (!all.is_array()) fail("{}: expected a JSON array of conversations, got {}", source, excerpt(all));
  std::vector<FilePrompt> prompts;
  for (const json& entry : all) {
    const std::string place = fmt::format("{} entry {}", source, &entry - all.get_ref<const json::array_t&>().data());
    const auto turns = entry.is_object() ? entry.find("conversations") : entry.end();
    if (!entry.is_object() || turns == entry.end() || !turns->is_array())
      fail("{}: expected \"conversations\", an array, got {}", place, excerpt(entry));
    if (turns->size() < 2) continue;
    for (const int turn : {0, 1})
      if (!(*turns)[turn].is_object()) fail("{}: expected an object, got {}", place, excerpt((*turns)[turn]));
    prompts.push_back({string_of((*turns)[0], "value", place), string_of((*turns)[1], "value", place)});
    if (prompts.back().prompt.empty() || prompts.back().answer.empty()) prompts.pop_back();
  }
  return prompts;
}

std::vector<FilePrompt> parse_longbench(std::string_view text, const std::string& source) {
  std::vector<FilePrompt> prompts;
  for_each_line(text, source, [&](std::string_view line, const std::string& place) {
    const json object = parse_object(line, place);
    prompts.emplace_back().prompt = string_of(object, "context", place) + "\n\n" + string_of(object, "input", place);
  });
  return prompts;
}

std::vector<Lengths> parse_trace(std::string_view text, const std::string& source) {
  const bool is_json = text.find_first_not_of(" \r\n\t") != text.npos && text[text.find_first_not_of(" \r\n\t")] == '{';
  std::vector<Lengths> rows = is_json ? parse_jsonl_trace(text, source) : parse_csv(text, source);
  std::erase_if(rows, [](const Lengths& l) { return l.input == 0 || l.output == 0; });
  std::ranges::stable_sort(rows, {}, &Lengths::at);
  const double start = rows.empty() ? 0 : rows.front().at;
  for (Lengths& l : rows) l.at -= start;
  return rows;
}

}  // namespace foe
