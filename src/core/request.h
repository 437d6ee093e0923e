// What a client asks of the engine, and what comes back: token ids only, text is the front end's business.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace foe {

struct LogitBias {
  std::int32_t token = 0;
  float bias = 0.0f;  // in [-100, 100], added to the token's logit
};

// How an output token is chosen. Logits first take the bias and the penalties, and lose the tokens that the request's
// constraint or min_tokens forbids; then temperature, min_p, top_k and top_p in this order.
struct SamplingParams {
  float temperature = 0.0f;         // 0: greedy, the most likely token, the lowest id among equals
  float top_p = 1.0f;               // in (0, 1]
  int top_k = 0;                    // 0: all
  float min_p = 0.0f;               // in [0, 1]: drops tokens less likely than this share of the most likely one
  float presence_penalty = 0.0f;    // in [-2, 2]: taken from the logit of each token that the output has
  float frequency_penalty = 0.0f;   // in [-2, 2]: the same, times how often the output has it
  float repetition_penalty = 1.0f;  // in (0, 2]: for tokens of prompt and output divides logits > 0, multiplies others
  std::vector<LogitBias> logit_bias = {};
  int min_tokens = 0;        // until the output has so many, stop ids are not chosen
  std::uint64_t seed = 0;    // the n-th output token is drawn with random number (seed, n), whatever else runs
  int logprobs = -1;         // so many most likely tokens are reported with each output token, and itself; -1: none
  int prompt_logprobs = -1;  // the same for the tokens of the prompt
};

// What the text of the output must be.
struct Constraint {
  enum class Kind { kNone, kJsonObject, kJsonSchema };
  Kind kind = Kind::kNone;
  std::string schema;  // JSON
};

struct Request {
  std::int64_t id = 0;
  std::vector<std::int32_t> prompt;    // at least one token
  std::vector<std::int32_t> output;    // already generated, before a restart: continues behind it
  int max_tokens = 16;                 // output tokens in all, those above included
  std::vector<std::int32_t> stop_ids;  // tokens that end the output (and are part of it)
  int priority = 0;                    // lower ones go first
  SamplingParams sampling;
  Constraint constraint = {};
};

enum class FinishReason { kStop, kLength };
// As OpenAI's API calls it.
constexpr const char* to_string(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

// The natural logarithm of a token's probability under the model alone: before bias, penalties and temperature.
struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0.0f;
};

// What is reported of one place in a text.
struct LogprobEntry {
  float logprob = 0.0f;           // of the token that stands there
  std::vector<TokenLogprob> top;  // the most likely tokens there, most likely first, the lowest id among equals
};

// One more output token of a request.
struct TokenEvent {
  std::int64_t id = 0;
  std::int32_t token = 0;
  std::optional<FinishReason> finish = {};    // set on the last one
  int cached_tokens = 0;                      // positions of the prompt that were found in the prefix cache
  std::optional<LogprobEntry> logprobs = {};  // if the request asked for them
  float queue_s = 0, prefill_s = 0;           // with the first token: seconds before the first step, and from there
  std::vector<LogprobEntry> prompt = {};  // with the first token, if asked for: of prompt tokens 1, 2, ... (0 has none)
};

}  // namespace foe
