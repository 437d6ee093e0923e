// Renders chat templates for template_oracle_test.py: each line of the input is a case, each line of the output its
// answer, {"text": ...} or {"error": ...}.
#include <iostream>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/chat_template.h"

namespace {

using nlohmann::ordered_json;

ordered_json render(const ordered_json& test) {
  foe::ChatTemplateOptions options;
  options.add_generation_prompt = test.at("add_generation_prompt").get<bool>();
  ordered_json variables = test.at("variables").is_null() ? ordered_json::object() : test.at("variables");
  variables["tools"] = test.at("tools");
  options.now = test.at("now").get<std::time_t>();
  try {
    return {{"text", foe::ChatTemplate::parse(test.at("template").get<std::string>())
                         .render(test.at("messages"), variables, options)}};
  } catch (const foe::Error& error) {
    return {{"error", error.what()}};
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) std::cout << render(ordered_json::parse(line)).dump() << "\n";
}
