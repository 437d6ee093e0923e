#include "flags.h"

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/error.h"

namespace foe {
namespace {

constexpr const char* kNotEmpty = "not empty";  // the name of a check

std::string check_not_empty(const std::string& text) {
  return text.empty() ? "expected a value, got an empty one: leave the flag out for its default" : "";
}

// The parser takes the nearest number that fits in 64 bits.
template <typename T>
std::string check_64_bits(const std::string& text) {
  errno = 0;
  if (std::is_same_v<T, std::uint64_t>)
    std::strtoull(text.c_str(), nullptr, 0);
  else
    std::strtoll(text.c_str(), nullptr, 0);
  return errno == ERANGE ? "expected an integer of 64 bits, got " + text : "";
}

template <typename T>
constexpr bool kIsText = std::is_same_v<T, std::string> || std::is_same_v<T, std::optional<std::string>> ||
                         std::is_same_v<T, std::vector<std::string>>;
template <typename T>
constexpr bool kIs64Bits = std::is_same_v<T, std::int64_t> || std::is_same_v<T, std::uint64_t> ||
                           std::is_same_v<T, std::optional<std::int64_t>>;

}  // namespace

Option Option::required() const {
  return Option(option_->required());
}

Option Option::show_default() const {
  return Option(option_->capture_default_str());
}

Option Option::range(int low, int high) const {
  return Option(option_->check(CLI::Range(low, high)));
}

// CLI::Range lets NaN pass.
Option Option::number_in(double low, double high) const {
  const auto check = [low, high](const std::string& text) {
    double value = 0;
    if (CLI::detail::lexical_cast(text, value) && value >= low && value <= high) return std::string();
    return fmt::format("expected a number from {} to {}, got {}", low, high, text);
  };
  return Option(option_->check(CLI::Validator(check, fmt::format("FLOAT in [{:g} - {:g}]", low, high))));
}

Option Option::one_of(std::initializer_list<const char*> values) const {
  return Option(option_->check(CLI::IsMember(std::vector<std::string>(values.begin(), values.end()))));
}

Option Option::parsed_by(std::function<void(const std::string&)> parse) const {
  return Option(option_->check([parse = std::move(parse)](const std::string& text) {
    try {
      parse(text);
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  }));
}

Option Option::may_be_empty() const {
  option_->get_validator(kNotEmpty)->active(false);
  return *this;
}

Option Option::list() const {
  return Option(option_->delimiter(','));
}

Option Option::repeats() const {
  return Option(option_->take_all());
}

Option Option::env(const char* variable) const {
  return Option(option_->envname(variable));
}

Option Option::needs(Option other) const {
  return Option(option_->needs(other.option_));
}

Option Option::excludes(Option other) const {
  return Option(option_->excludes(other.option_));
}

Command Command::subcommand(const char* name, const char* help) const {
  return Command(app_->add_subcommand(name, help));
}

Command Command::hidden_subcommand(const char* name, const char* help) const {
  return Command(app_->add_subcommand(name, help)->group(""));
}

void Command::requires_subcommand() const {
  app_->require_subcommand(1);
}

template <typename T>
Option Command::option(const char* names, T& value, const std::string& help) const {
  CLI::Option* option = app_->add_option(names, value, help);
  if constexpr (kIsText<T>) option->check(CLI::Validator(check_not_empty, "", kNotEmpty));
  if constexpr (kIs64Bits<T>) option->check(CLI::Validator(check_64_bits<T>, ""));
  return Option(option);
}

Option Command::number(const std::string& name, std::function<void(double)> set, const std::string& help) const {
  return Option(app_->add_option_function<double>(name, std::move(set), help));
}

Option Command::flag(const char* names, bool& value, const char* help) const {
  return Option(app_->add_flag(names, value, help));
}

void Command::runs(std::function<void()> run) const {
  app_->callback(std::move(run));
}

CommandLine::CommandLine(const char* name, const char* description, const char* version, const char* footer)
    : app_(std::make_unique<CLI::App>(description, name)) {
  app_->set_version_flag("--version", version);
  app_->require_subcommand(1);
  app_->footer(footer);
}

CommandLine::~CommandLine() = default;

int CommandLine::run(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    app_->exit(error);
    // What is missing may be mistyped: the parser says nothing of words that it does not know where others are missing.
    const std::vector<std::string> unknown = app_->remaining(/*recurse=*/true);
    if (!unknown.empty()) fmt::print(stderr, "Not known: {}\n", fmt::join(unknown, " "));
    return 2;
  } catch (const CLI::ParseError& error) {
    if (app_->exit(error) != 0) return 2;
  }
  return 0;
}

template Option Command::option(const char*, int&, const std::string&) const;
template Option Command::option(const char*, std::int64_t&, const std::string&) const;
template Option Command::option(const char*, std::uint64_t&, const std::string&) const;
template Option Command::option(const char*, float&, const std::string&) const;
template Option Command::option(const char*, double&, const std::string&) const;
template Option Command::option(const char*, std::string&, const std::string&) const;
template Option Command::option(const char*, std::optional<std::string>&, const std::string&) const;
template Option Command::option(const char*, std::optional<std::int64_t>&, const std::string&) const;
template Option Command::option(const char*, std::vector<int>&, const std::string&) const;
template Option Command::option(const char*, std::vector<double>&, const std::string&) const;
template Option Command::option(const char*, std::vector<std::string>&, const std::string&) const;

}  // namespace foe
