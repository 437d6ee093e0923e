// foe tokenize: turns text into token ids, and back.
#include <iostream>
#include <iterator>
#include <memory>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "commands.h"
#include "common.h"
#include "tokenizer/tokenizer.h"

namespace foe {
namespace {

struct TokenizeFlags {
  std::string model;
  std::optional<std::string> text;
  std::optional<std::string> decode;
  bool plain = false;
  bool json = false;
};

void print_text(const Tokenizer& tokenizer, const TokenizeFlags& flags) {
  const std::vector<std::int32_t> ids = parse_tokens("--decode", *flags.decode);
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= tokenizer.vocab_size()) {
      fail("--decode: expected ids from 0 to {}, got {}", tokenizer.vocab_size() - 1, id);
    }
  }
  const std::string text = tokenizer.decode(ids);
  fmt::print("{}\n", flags.json ? nlohmann::json{{"prompt", text}}.dump() : text);
}

void print_ids(const Tokenizer& tokenizer, const TokenizeFlags& flags) {
  const std::string text =
      flags.text ? *flags.text
                 : std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  const std::vector<std::int32_t> ids = tokenizer.encode(text, {.add_special_tokens = !flags.plain});
  if (flags.json) {
    fmt::print("{}\n", nlohmann::json{{"count", ids.size()}, {"tokens", ids}}.dump());
  } else {
    fmt::print("{}\n", fmt::join(ids, ","));
  }
}

}  // namespace

void add_tokenize_command(Command app) {
  auto flags = std::make_shared<TokenizeFlags>();
  Command command = app.subcommand("tokenize", "Turn text into token ids, or ids into text");
  add_model(command, flags->model);
  const Option text =
      command.option("--text", flags->text, "text to encode; default: all of standard input").may_be_empty();
  command.option("--decode", flags->decode, "token ids to decode, as in 1,2,3, or @FILE with such a list")
      .excludes(text);
  command.flag("--plain", flags->plain, "do not add the tokens that begin or end a text (BOS, EOS)");
  command.flag("--json", flags->json, "print a JSON object with the fields of the server's /tokenize and /detokenize");
  runs_on_model(command, flags->model, [flags] {
    const Tokenizer tokenizer = Tokenizer::of_model(flags->model);
    (flags->decode ? print_text : print_ids)(tokenizer, *flags);
  });
}

}  // namespace foe
