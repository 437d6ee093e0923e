// What a command line may say: commands, options and the checks of their values. CLI11 parses; only flags.cc includes
// it, as its headers take longer to compile than a command does.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace foe {

// A handle to an option that has been declared; each call adds something to it. A value that a check refuses is bad
// usage, with the exit status 2.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required() const;
  Option show_default() const;  // --help shows what the variable holds now
  // A whole number in [low, high].
  Option range(int low, int high) const;
  // A number in [low, high], and not NaN.
  Option number_in(double low, double high) const;
  Option one_of(std::initializer_list<const char*> values) const;
  // A text for which `parse` does not throw Error, whose text says what was expected.
  Option parsed_by(std::function<void(const std::string&)> parse) const;
  // Without this, an empty text is refused: it may come from a variable that is not set, and would count as not given.
  Option may_be_empty() const;
  Option list() const;     // values separated by commas
  Option repeats() const;  // may be given several times
  Option env(const char* variable) const;
  Option needs(Option other) const;
  Option excludes(Option other) const;

 private:
  CLI::Option* option_;  // never null; owned by its command
};

// A handle to a command. What is declared keeps references to the variables that it sets: whatever runs() is given owns
// them.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command subcommand(const char* name, const char* help) const;
  // Not shown in --help.
  Command hidden_subcommand(const char* name, const char* help) const;
  // Of exactly one subcommand.
  void requires_subcommand() const;
  // `names` as in "--a,--b"; without dashes, a positional argument. T: what flags.cc instantiates at its end.
  template <typename T>
  Option option(const char* names, T& value, const std::string& help = "") const;
  // `set` is called with the value when there is one.
  Option number(const std::string& name, std::function<void(double)> set, const std::string& help) const;
  // True when given.
  Option flag(const char* names, bool& value, const char* help) const;
  // What the command does when it is chosen and its options are well-formed.
  void runs(std::function<void()> run) const;

 private:
  CLI::App* app_;  // never null; owned by the command line
};

// The whole command line, with --help and --version.
class CommandLine {
 public:
  CommandLine(const char* name, const char* description, const char* version, const char* footer);
  ~CommandLine();

  Command root() const { return Command(app_.get()); }
  // Runs what was chosen, or prints --help or what is wrong with the usage. Returns the exit status, 0 or 2. Throws
  // what the command throws.
  int run(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace foe
