// Answers lark_oracle_test.py: each line of the input is {"grammar": ..., "texts": [...], "samples": count}, each line
// of the output {"accepted": [...], "samples": [...]}, with random outputs of the grammar, or {"error": ...}.
#include <iostream>
#include <string>

#include "base/error.h"
#include "grammar/walk.h"

namespace {

using nlohmann::json;

json answer(const json& question) {
  static const auto bytes = foe::make_table({});
  static const auto vocabulary = foe::shipped_table();
  json accepted = json::array(), samples = json::array();
  try {
    const auto grammar = foe::compile_grammar({foe::Constraint::Kind::kGrammar, question.at("grammar")});
    for (const std::string text : question.at("texts")) {
      foe::GrammarMatcher matcher(grammar, bytes);
      for (const char byte : text) matcher.accept(static_cast<std::uint8_t>(byte));
      accepted.push_back(matcher.complete());
    }
    for (std::uint64_t seed = 0; seed < question.at("samples"); ++seed)
      samples.push_back(foe::random_output(grammar, vocabulary, seed));
  } catch (const foe::Error& error) {
    return {{"error", error.what()}};
  }
  return {{"accepted", accepted}, {"samples", samples}};
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) std::cout << answer(json::parse(line)).dump() << "\n";
}
