// Receipts: what an answer was computed from, so that anyone who has the model can compute it again (docs/receipts.md).
//
// A receipt is JSON. All digests are SHA-256, in hexadecimal: of the model's parts, and of the canonical text of the
// members `request` and `choices` (keys in alphabetical order, without white space). They show what was changed by
// accident or is of another model. They are no signature: what shows a forged answer is that it is computed again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/bits.h"
#include "core/request.h"
#include "server/api/generation_request.h"

namespace foe {

inline constexpr int kReceiptVersion = 2;  // of the form of receipts; those of version 1 have no digest of the name
inline constexpr std::size_t kMaxReceiptBytes = std::size_t{64} << 20;  // of one that is read

// How the ranks compute, as far as it changes bits.
struct ReceiptEngine {
  std::string dtype, quantize;  // as --dtype and --quantize
  std::string formats;          // the formats that weights have in memory, by part
  std::string kv_dtype, attention;

  bool operator==(const ReceiptEngine&) const = default;
};

// What all receipts of a server have in common. The digests are those of weights_sha256(), model_config_json(),
// Tokenizer::digest() and template_sha256().
struct ReceiptModel {
  std::string name;
  std::string weights, config, tokenizer, chat_template;
  ReceiptEngine engine;
};

// Where an answer ends besides at its stop ids and its length.
struct ReceiptText {
  std::vector<std::string> stop;
  bool include_stop = false, skip_special_tokens = true;
  std::vector<std::int32_t> markers;  // special tokens that are text nevertheless, as answers are read by them
};

struct ReceiptChoice {
  std::uint64_t seed = 0;
  std::vector<std::int32_t> tokens;
  FinishReason finish = FinishReason::kLength;
};

struct Receipt {
  int version = kReceiptVersion;
  int bits = kBitsVersion;
  ReceiptModel model;
  ReceiptText text;
  std::vector<Prompt> prompts;         // equally many choices are of each
  Request common;                      // without prompt, output, seed and route
  std::vector<ReceiptChoice> choices;  // at least one
  std::string route;                   // the file that they are routed by, in base64; empty: none
  // As the receipt says; empty: not read from a receipt, or none in its version.
  std::string model_digest = {}, request_digest = {}, choices_digest = {};
};

// Returns the SHA-256 of a template's text and, if that is another one, of the text for chats with tools behind a NUL.
// Empty if there is none.
std::string template_sha256(const ChatTemplate& chat_template);

// Returns a receipt for the choices of `request`, which still lacks their tokens and reasons. `choices` are
// engine_requests(). `markers` are what ReceiptText::markers is.
Receipt begin_receipt(const ReceiptModel& model, const GenerationRequest& request, const std::vector<Request>& choices,
                      std::vector<std::int32_t> markers);

// Returns what the engine was asked for one choice, and the output; but not the route.
Request request_of(const Receipt& receipt, std::size_t choice);

// Returns the JSON of a receipt, on one line.
std::string receipt_text(const Receipt& receipt);

// Reads a receipt, which may be any bytes. Throws Error, beginning with `source` and naming the member, for anything
// but a receipt: one of another version, members that are missing or not known, and numbers that no request can have.
// Ids are not compared with a vocabulary. The route is not read.
Receipt parse_receipt(std::string_view text, const std::string& source);

// Returns which member has been changed since the receipt was written, by its digests; empty if none has.
std::string changed_member(const Receipt& receipt);

// Returns the number of tokens after which the answer of a choice ends, and why, by its stop ids, its length and the
// receipt's stop strings; no reason if it goes on after all that are there.
struct AnswerEnd {
  std::size_t tokens = 0;
  std::optional<FinishReason> reason;
};
AnswerEnd end_of_answer(const Receipt& receipt, std::size_t choice, const Tokenizer& tokenizer);

}  // namespace foe
