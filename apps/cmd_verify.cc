// foe verify: computes the answer of a receipt again, and says whether it is the same.
#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "comm/rank_lost.h"
#include "commands.h"
#include "common.h"
#include "grammar/token_table.h"
#include "jinja/chat_template.h"
#include "kernels/cpu.h"
#include "server/api/receipt.h"
#include "text/base64.h"
#include "trace/route_file.h"
#include "weights/config_json.h"
#include "weights/identity.h"
#include "weights/model_path.h"
#include "weights/tensor_folder.h"

namespace foe {
namespace {

constexpr int kRows = 64;  // of logits at a time
// Exit statuses.
constexpr int kEqual = 0, kDiffers = 1, kNotChecked = 2;

struct VerifyFlags {
  ModelFlags model;
  std::string receipt;
  std::string chat_template;
};

// The receipts of a file: the only one or, of a file whose name ends in .jsonl, one on each line.
class ReceiptFile {
 public:
  explicit ReceiptFile(const std::string& path) : path_(path), lines_(path.ends_with(".jsonl")) {
    if (!lines_) {
      text_ = read_text_file(path, kMaxReceiptBytes);
      return;
    }
    file_.open(path);
    if (!file_) fail("{}: expected a file that can be read", path);
    line_.resize(kMaxReceiptBytes + 2);
  }

  bool has_several() const { return lines_; }
  // The name of the last receipt in messages.
  std::string name() const { return lines_ ? fmt::format("{}:{}", path_, number_) : path_; }
  // Returns the text of the next receipt; none at the end.
  std::optional<std::string> next() {
    ++number_;
    if (!lines_) return number_ == 1 ? std::optional(text_) : std::nullopt;
    file_.getline(line_.data(), static_cast<std::streamsize>(line_.size()));
    if (file_.gcount() == 0) return {};
    if (file_.fail()) fail("{}: expected a line of at most {} bytes", name(), kMaxReceiptBytes);
    return std::string(line_.data());
  }

 private:
  std::string path_, text_;
  bool lines_;
  std::ifstream file_;
  std::vector<char> line_;
  std::int64_t number_ = 0;
};

struct Verdict {
  int status = kEqual;
  std::string text;
};

template <typename... Args>
Verdict verdict(int status, fmt::format_string<Args...> format, Args&&... args) {
  return {status, fmt::format(format, std::forward<Args>(args)...)};
}

// Sets a flag to what the receipt says. Throws Error if the user says something else.
void take(const char* name, std::string& flag, const std::string& receipt) {
  if (!flag.empty() && flag != receipt)
    fail("{}: expected '{}', as the receipt says, got '{}'", name, shorten(receipt), flag);
  flag = receipt;
}

void take_engine(ModelFlags& flags, const ReceiptEngine& engine) {
  take("--dtype", flags.dtype, engine.dtype);
  take("--quantize", flags.quantize, engine.quantize);
  take("--kv-dtype", flags.kv_dtype, engine.kv_dtype);
  take("--attention", flags.attention, engine.attention);
  attention_of(flags);  // throws Error for a receipt with other names
  format_choice(flags.dtype, flags.quantize);
  if (flags.wire != "f32") fail("--wire: expected f32, which receipts are made with, got {}", flags.wire);
}

void expect_same(const char* what, const std::string& receipt, const std::string& here) {
  if (receipt != here)
    fail("cannot be checked: expected {} {}, as the receipt says, got {}", what,
         receipt.empty() ? "none" : shorten(receipt), here.empty() ? "none" : here);
}

// Throws Error unless the receipt is of this model and this version of foe. What is not known here yet is empty.
void expect_model(const Receipt& receipt, const ReceiptModel& here) {
  if (receipt.bits != kBitsVersion)
    fail("cannot be checked: expected version {} of the engine's bits, which this foe has, got {}", kBitsVersion,
         receipt.bits);
  const ReceiptModel& model = receipt.model;
  expect_same("config", model.config, here.config);
  expect_same("tokenizer", model.tokenizer, here.tokenizer);
  expect_same("chat template", model.chat_template, here.chat_template);
  expect_same("dtype", model.engine.dtype, here.engine.dtype);
  expect_same("quantize", model.engine.quantize, here.engine.quantize);
  expect_same("kv_dtype", model.engine.kv_dtype, here.engine.kv_dtype);
  expect_same("attention", model.engine.attention, here.engine.attention);
  if (!here.weights.empty()) expect_same("weights", model.weights, here.weights);
  if (!here.engine.formats.empty() && !model.engine.formats.empty())
    expect_same("formats", model.engine.formats, here.engine.formats);
}

std::shared_ptr<const SequenceRoute> route_of(const Receipt& receipt) {
  if (receipt.route.empty()) return {};
  const std::optional<std::string> file = decode_base64(receipt.route);
  if (!file) fail("route: expected base64, got '{}'", shorten(receipt.route));
  return std::make_shared<const SequenceRoute>(RouteFile(std::as_bytes(std::span(*file)), "route").route());
}

std::string named(const Tokenizer& tokenizer, std::int32_t token) {
  return fmt::format("{} ({})", token, excerpt(tokenizer.decode({&token, 1})));
}

Verdict check_choice(Engine& engine, const Receipt& receipt, std::size_t index, const Tokenizer& tokenizer,
                     const std::shared_ptr<const SequenceRoute>& route) {
  Request request = request_of(receipt, index);
  const std::vector<std::int32_t> tokens = request.output;
  if (tokens.size() > static_cast<std::size_t>(request.max_tokens))
    fail("choices[{}]: expected at most max_tokens = {} tokens, got {}", index, request.max_tokens, tokens.size());
  request.route = route;
  const Engine::Replayed replayed = engine.replay(request);
  if (replayed.chosen)
    return verdict(kDiffers, "choice {} differs at token {}: the receipt has {}, the model chooses {}", index,
                   replayed.equal, named(tokenizer, tokens[replayed.equal]), named(tokenizer, *replayed.chosen));
  const AnswerEnd end = end_of_answer(receipt, index, tokenizer);
  if (!end.reason)
    return verdict(kDiffers, "choice {} differs at token {}: the receipt ends, the answer goes on", index,
                   tokens.size());
  if (end.tokens < tokens.size())
    return verdict(kDiffers, "choice {} differs at token {}: the receipt has {}, the answer has ended", index,
                   end.tokens, named(tokenizer, tokens[end.tokens]));
  const FinishReason reason = receipt.choices[index].finish;
  if (*end.reason != reason)
    return verdict(kDiffers, "choice {} differs in its finish_reason: the receipt has {}, the answer {}", index,
                   to_string(reason), to_string(*end.reason));
  return {};
}

Verdict check(Engine& engine, const Receipt& receipt, const ReceiptModel& here, const Tokenizer& tokenizer) {
  expect_model(receipt, here);
  const auto route = route_of(receipt);
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < receipt.choices.size(); ++i) {
    const Verdict choice = check_choice(engine, receipt, i, tokenizer, route);
    if (choice.status != kEqual) return choice;
    tokens += receipt.choices[i].tokens.size();
  }
  if (const std::string changed = changed_member(receipt); !changed.empty())
    return verdict(kDiffers, "the tokens are equal, but {} has been changed since the receipt was written", changed);
  return verdict(kEqual, "equal: {} tokens in {} choices", tokens, receipt.choices.size());
}

// Checks all receipts of a file, and prints what differs. Returns the exit status.
int check_all(Engine& engine, ReceiptFile& file, std::string text, const ReceiptModel& here,
              const Tokenizer& tokenizer) {
  int counts[3] = {};
  for (std::optional<std::string> next = std::move(text); next; next = file.next()) {
    Verdict result;
    try {
      result = check(engine, parse_receipt(*next, file.name()), here, tokenizer);
    } catch (const RankLost&) {
      throw;
    } catch (const Error& error) {
      if (!file.has_several()) throw;
      result = {kNotChecked, error.what()};
    }
    ++counts[result.status];
    if (!file.has_several() || result.status != kEqual)
      print_now((file.has_several() ? file.name() + ": " : "") + result.text + "\n");
  }
  if (file.has_several())
    print_now(fmt::format("{} receipts are equal, {} differ, {} cannot be checked\n", counts[kEqual], counts[kDiffers],
                          counts[kNotChecked]));
  return counts[kDiffers] > 0 ? kDiffers : counts[kNotChecked] > 0 ? kNotChecked : kEqual;
}

std::size_t longest_text(const Receipt& receipt) {
  std::size_t prompt = 0, output = 0;
  for (const Prompt& one : receipt.prompts) prompt = std::max(prompt, one.size());
  for (const ReceiptChoice& choice : receipt.choices) output = std::max(output, choice.tokens.size());
  return prompt + output;
}

int run_verify(VerifyFlags& flags) {
  flags.model.model = find_model(flags.model.model);
  ReceiptFile file(flags.receipt);
  const std::optional<std::string> text = file.next();
  if (!text) fail("{}: expected receipts, got none", flags.receipt);
  const Receipt first = parse_receipt(*text, file.name());
  take_engine(flags.model, first.model.engine);
  const ModelConfig config = load_model_config(flags.model.model);
  const Tokenizer tokenizer = Tokenizer::of_model(flags.model.model);
  ReceiptModel here{.name = {},
                    .weights = {},
                    .config = sha256(model_config_json(config)),
                    .tokenizer = tokenizer.digest(),
                    .chat_template = template_sha256(ChatTemplate::load(flags.model.model, flags.chat_template)),
                    .engine = first.model.engine};
  here.engine.formats.clear();
  expect_model(first, here);
  EngineOptions options;
  options.max_sequences = 1;
  options.max_sampled = std::min(kRows, flags.model.chunk);
  options.kv_tokens = config.max_position_embeddings;
  if (!file.has_several())
    options.kv_tokens = static_cast<int>(std::clamp<std::size_t>(longest_text(first), 1, options.kv_tokens));
  int status = kEqual;
  std::string failure;
  run_on_all_ranks(flags.model, options, [&](Engine& engine) {
    engine.allow_constraints(std::make_shared<TokenTable>(tokenizer, config.vocab_size));
    here.engine.formats = formats_in_memory(engine.model());
    ThreadPool pool(engine.threads());
    here.weights = weights_sha256(pool, TensorFolder(flags.model.model), [&] { engine.heartbeat(); });
    try {
      status = check_all(engine, file, *text, here, tokenizer);
    } catch (const RankLost&) {
      throw;
    } catch (const Error& error) {  // all ranks end in order
      failure = error.what();
      status = kNotChecked;
    }
  });
  if (!failure.empty()) throw Error(failure);
  return status;
}

}  // namespace

void add_verify_command(Command app) {
  auto flags = std::make_shared<VerifyFlags>();
  Command command = app.subcommand(
      "verify", "Compute the answer of a receipt again, and say whether it is the same or where it differs first");
  command
      .option("RECEIPT", flags->receipt,
              "file with the `receipt` of an answer, or, if its name ends in .jsonl, with one on each line")
      .required();
  flags->model.kv_dtype = flags->model.attention = "";
  add_model_flags(command, flags->model);
  command.option("--chat-template", flags->chat_template,
                 "file with the chat template that the server had; default: the model folder's own");
  command.runs([flags] {
    int status = kEqual;
    try {
      status = run_verify(*flags);
    } catch (const Error& error) {
      throw StatusError(kNotChecked, error.what());
    }
    if (status != kEqual) throw StatusError(status, "");
  });
}

}  // namespace foe
