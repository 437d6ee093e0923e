// Random outputs for the schemas on standard input, one a line, as JSON lists of texts: grammar_samples PER_SCHEMA
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "base/error.h"
#include "grammar/walk.h"

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 1;
  const auto table = foe::shipped_table();
  for (std::string schema; std::getline(std::cin, schema);) {
    nlohmann::json texts = nlohmann::json::array();
    try {
      const auto grammar = foe::compile(schema);
      for (int seed = 0; seed < count; ++seed) {
        texts.push_back(foe::random_output(grammar, table, static_cast<std::uint64_t>(seed)));
      }
    } catch (const foe::Error& error) {
      texts = error.what();
    }
    std::puts(texts.dump().c_str());
  }
}
