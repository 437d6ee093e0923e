// What the engine is asked for, and what it returns. There are only token ids here: the front end deals with text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/route.h"

namespace foe {

struct LogitBias {
  std::int32_t token = 0;
  float bias = 0.0f;  // in [-100, 100], added to the token's logit
};

// How an output token is chosen. The logits first get the bias and the penalties. Then tokens are removed that are not
// allowed, complete a bad word, or that the constraint or min_tokens forbids. Then temperature, min_p, top_k and top_p
// are applied, in this order.
struct SamplingParams {
  float temperature = 0.0f;         // 0: greedy, the most likely token; among equals the lowest id
  float top_p = 1.0f;               // in (0, 1]
  int top_k = 0;                    // 0: all
  float min_p = 0.0f;               // in [0, 1]: drops tokens less likely than this share of the most likely one
  float presence_penalty = 0.0f;    // in [-2, 2]: subtracted from the logit of each token that the output has
  float frequency_penalty = 0.0f;   // in [-2, 2]: subtracted as often as the output has the token
  float repetition_penalty = 1.0f;  // in (0, 2]: for tokens of prompt or output, divides logits > 0, multiplies others
  std::vector<LogitBias> logit_bias = {};
  std::vector<std::int32_t> allowed_tokens = {};          // only these are chosen, in ascending order; empty: all
  std::vector<std::vector<std::int32_t>> bad_words = {};  // runs of tokens that the output may not have, none empty
  int min_tokens = 0;                                     // stop ids are not chosen until the output has so many tokens
  std::uint64_t seed = 0;  // output token n is drawn with random number (seed, n), whatever else runs
  int logprobs = -1;       // report each output token's logprob and so many of the most likely tokens; -1: nothing
  // With logprobs, not empty: these tokens and the chosen one are reported, in place of the most likely ones.
  std::vector<std::int32_t> logprob_tokens = {};
  int prompt_logprobs = -1;  // as logprobs, for the tokens of the prompt
  // The first token of the prompt that is reported. What comes before it gives no logits, and may be found in the
  // prefix cache.
  int prompt_logprobs_from = 1;
};

// A rule that the text of the output must keep.
struct Constraint {
  enum class Kind { kNone, kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar };
  Kind kind = Kind::kNone;
  // The schema, in JSON; the regular expression that the whole text matches; the texts that are allowed, as an array of
  // JSON; or the rules of a context-free grammar, in GBNF or Lark's notation.
  std::string rule = {};
  // Whether objects for which a schema lists properties may have others, too, where it does not say.
  bool open_objects = false;

  bool operator==(const Constraint&) const = default;
};

// The tokens between which the reasoning of an output is; -1: there is none.
struct ReasoningMarks {
  std::int32_t begin = -1, end = -1;
  bool begun = false;  // whether the prompt has begun the reasoning
  int budget = -1;     // after so many tokens of reasoning, without its marks, the next token is `end`; -1: any number

  bool operator==(const ReasoningMarks&) const = default;
};

// The tokens of a prompt, which do not change. Copies share them: the front end's journal keeps a request while the
// ranks run it, and all choices of one reply have the same prompt.
class Prompt {
 public:
  using value_type = std::int32_t;
  using const_iterator = std::vector<std::int32_t>::const_iterator;

  Prompt() = default;
  Prompt(std::vector<std::int32_t> tokens)  // NOLINT: a prompt is its tokens
      : tokens_(std::make_shared<const std::vector<std::int32_t>>(std::move(tokens))) {}
  Prompt(std::initializer_list<std::int32_t> tokens) : Prompt(std::vector(tokens)) {}

  const std::vector<std::int32_t>& tokens() const {
    static const std::vector<std::int32_t> kNone;
    return tokens_ ? *tokens_ : kNone;
  }
  std::size_t size() const { return tokens().size(); }
  bool empty() const { return tokens().empty(); }
  std::int32_t operator[](std::size_t i) const { return tokens()[i]; }
  const_iterator begin() const { return tokens().begin(); }
  const_iterator end() const { return tokens().end(); }
  bool operator==(const Prompt& other) const { return tokens() == other.tokens(); }

 private:
  std::shared_ptr<const std::vector<std::int32_t>> tokens_;
};

// What a request wants of the final hidden states of its prompt, behind the last norm, instead of an output: that of
// the last token, or the mean of all, which is added in double in the order of the tokens.
enum class Pooling : std::uint8_t { kNone, kLast, kMean };

struct Request {
  std::int64_t id = 0;
  Prompt prompt;                       // at least one token
  std::vector<std::int32_t> output;    // tokens that were generated before a restart: generation continues after them
  int max_tokens = 16;                 // limit on output tokens, including those in `output`; with pooling 0
  std::vector<std::int32_t> stop_ids;  // tokens that end the output (and are part of it)
  int priority = 0;                    // lower values are served first
  std::uint64_t cache_salt = 0;        // requests with different ones do not use each other's KV blocks
  SamplingParams sampling;
  Constraint constraint = {};
  ReasoningMarks reasoning = {};  // the constraint holds behind it, if the output has any
  // What its first positions are routed by, instead of the router. Copies share it.
  std::shared_ptr<const SequenceRoute> route = {};
  Pooling pooling = Pooling::kNone;

  bool pools() const { return pooling != Pooling::kNone; }
};

enum class FinishReason { kStop, kLength };
// Returns the name in OpenAI's API.
constexpr const char* to_string(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : "length";
}

// The natural logarithm of a token's probability under the model alone: before bias, penalties and temperature.
struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0.0f;
};

// What is reported for one place in a text.
struct LogprobEntry {
  float logprob = 0.0f;           // of the token at this place
  std::vector<TokenLogprob> top;  // the most likely tokens at this place, in descending order; equals by ascending id
  int rank = 1;                   // of the token: one more than there are tokens that are likelier
};

// One more output token of a request; of one with pooling all that comes of it, with a token that means nothing.
struct TokenEvent {
  std::int64_t id = 0;
  std::int32_t token = 0;
  std::optional<FinishReason> finish = {};    // set on the last token
  int cached_tokens = 0;                      // positions of the prompt that were found in the prefix cache
  std::optional<LogprobEntry> logprobs = {};  // if the request asked for them
  float queue_s = 0, prefill_s = 0;           // with the first token: seconds until its first step, and from then on
  std::vector<LogprobEntry> prompt = {};  // with the first token, if asked for: prompt tokens 1, 2, ... (0 has none),
                                          // or those from prompt_logprobs_from on
  std::vector<float> state = {};          // with pooling: as many numbers as the model is wide
};

}  // namespace foe
