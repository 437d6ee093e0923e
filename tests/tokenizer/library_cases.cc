// Encodes and decodes for library_test.py: library_cases MODEL, where MODEL is a model folder or a tokenizer.json. Each
// line of the input is JSON: {"text": ...} or {"ids": [...]}. Each line of the output is the ids, without what is put
// around a text (of special tokens parsed, and then not), or the text (whole, and then streamed).
#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

namespace {

nlohmann::json answer(const foe::Tokenizer& tokenizer, const nlohmann::json& line) {
  if (line.contains("text")) {
    const std::string text = line["text"];
    return {{"ids", tokenizer.encode(text, {.add_special_tokens = false})},
            {"raw", tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false})}};
  }
  const std::vector<std::int32_t> ids = line["ids"];
  foe::StreamDecoder decoder(tokenizer);
  std::string streamed;
  for (const std::int32_t id : ids) streamed += decoder.push(id);
  return {{"text", tokenizer.decode(ids)}, {"streamed", streamed + decoder.finish()}};
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string model = argc == 2 ? argv[1] : "";
  const foe::Tokenizer tokenizer =
      model.ends_with(".json") ? foe::Tokenizer::load(model) : foe::Tokenizer::of_model(model);
  for (std::string line; std::getline(std::cin, line);)
    std::cout << answer(tokenizer, nlohmann::json::parse(line)) << "\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
