#include "server/api/generation_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/rng.h"
#include "base/strict_json.h"
#include "engine/sampler.h"
#include "model/routes.h"
#include "sched/scheduler.h"
#include "server/api/known_fields.h"
#include "server/api/request_fields.h"
#include "server/ranks/link.h"
#include "text/base64.h"
#include "trace/route_file.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr std::size_t kMaxStopStrings = 16;
constexpr std::size_t kMaxStopBytes = 1024;
constexpr std::size_t kMaxStopIds = 128;
constexpr std::size_t kMaxSaltBytes = 1024;
constexpr std::size_t kMaxWrongKeys = 8;  // that an error names
constexpr std::size_t kMaxBadWords = 256, kMaxBadWordBytes = 256;
constexpr std::size_t kMaxRouteBytes = kMaxLinkMessage / 2;  // the rest of a request has to fit, too

std::optional<std::uint64_t> read_seed(const json& object) {
  const json* value = find_field(object, "seed");
  if (!value) return {};
  if (!value->is_number_integer()) refuse("seed", "expected an integer of 64 bits, got {}", excerpt(*value));
  return value->get<std::uint64_t>();  // a negative one wraps around: any 64 bits are a seed
}

void read_stream_options(const json& object, bool stream, GenerationRequest& request) {
  const json* value = find_field(object, "stream_options");
  if (!value) return;
  if (!stream) refuse("stream_options", "expected it only with stream = true");
  if (!value->is_object()) refuse("stream_options", "expected an object, got {}", excerpt(*value));
  for (const auto& [name, option] : value->items())  // obfuscation pads the chunks of OpenAI's servers
    if (name != "include_usage" && name != "continuous_usage_stats" && name != "include_obfuscation" &&
        !option.is_null() && option != false)
      refuse("stream_options", "expected include_usage and continuous_usage_stats, got {} {}", shorten(name),
             excerpt(option));
  request.include_usage = read_bool(*value, "include_usage", false);
  request.usage_in_chunks = read_bool(*value, "continuous_usage_stats", false) && request.include_usage;
}

// Reads how many of the most likely tokens are reported for each token of the prompt; -1 are all, as in vLLM.
int read_prompt_logprobs(const json& object, bool stream, const ServedModel& model) {
  constexpr const char* kField = "prompt_logprobs";
  const json* value = find_field(object, kField);
  if (!value) return -1;
  const int asked = read_int(object, kField, -1, std::numeric_limits<int>::max(), 0);
  const int most = asked == -1 ? model.vocab_size : asked;
  if (most > model.max_prompt_logprobs)
    refuse(kField, "expected at most {} (--max-prompt-logprobs), got {}{}", model.max_prompt_logprobs, asked,
           asked == -1 ? fmt::format(", which is the whole vocabulary of {}", most) : "");
  if (stream) refuse(kField, "expected it only with stream = false");
  return std::min(most, model.vocab_size);
}

// Returns how many tokens are named where prompts are reported, the prompts' own included.
std::size_t prompt_reports(const GenerationRequest& request) {
  std::size_t tokens = 0;
  for (const auto& prompt : request.prompts) tokens += prompt.size();
  return tokens * static_cast<std::size_t>(request.n) * static_cast<std::size_t>(request.prompt_logprobs + 1);
}

// Reads {"50256": -100}, whose keys are ids as strings.
std::vector<LogitBias> read_logit_bias(const json& object, int vocab_size) {
  const json* value = find_field(object, "logit_bias");
  if (!value) return {};
  if (!value->is_object()) refuse("logit_bias", "expected an object, got {}", excerpt(*value));
  if (value->size() > kMaxLogitBias)
    refuse("logit_bias", "expected at most {} tokens, got {}", kMaxLogitBias, value->size());
  std::vector<LogitBias> biases;
  std::vector<std::string> wrong;
  for (const auto& [key, bias] : value->items()) {
    const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == key.npos;
    const int id = digits ? std::stoi(key) : -1;
    if ((id < 0 || id >= vocab_size) && wrong.size() < kMaxWrongKeys) wrong.push_back(excerpt(key));
    if (!bias.is_number() || std::abs(bias.get<double>()) > 100)
      refuse("logit_bias", "expected numbers from -100 to 100, got {}", excerpt(bias));
    biases.push_back({id, bias.get<float>()});
  }
  if (!wrong.empty())
    refuse("logit_bias", "expected token ids in [0, {}) as keys, got {}", vocab_size, fmt::join(wrong, ", "));
  return biases;
}

// Reads a file of routes (trace/route_file.h), in base64, that the model can run. Whether it is of the model's weights
// is for the ranks to say.
std::shared_ptr<const SequenceRoute> read_route(const json& object, const ServedModel& model) {
  constexpr const char* kField = "foe_route";
  const json* value = find_field(object, kField);
  if (!value) return {};
  if (!model.routed_by_requests)
    refuse(kField, "this server routes by its model alone; whoever runs it may allow this with --allow-routes");
  if (!value->is_string()) refuse(kField, "expected a string, got {}", excerpt(*value));
  const std::optional<std::string> file = decode_base64(value->get_ref<const std::string&>());
  if (!file) refuse(kField, "expected base64, got {}", excerpt(*value));
  try {
    const RouteFile record(std::as_bytes(std::span(*file)), kField);
    // More could not be run, and is sent to the ranks and checked there once for every choice.
    if (record.tokens() > model.max_positions)
      refuse(kField, "expected at most {} tokens, the model's context, got {}", model.max_positions, record.tokens());
    auto route = std::make_shared<const SequenceRoute>(record.route());
    const std::size_t bytes = route->route.experts_TLK.size() * (sizeof(std::int32_t) + sizeof(float));
    if (bytes > kMaxRouteBytes)
      refuse(kField, "expected at most {} bytes of experts and weights, got {}", kMaxRouteBytes, bytes);
    check_route(route->route, *model.routed_by_requests);
    return route;
  } catch (const Error& error) {
    throw ApiError(400, kField, error.what());
  }
}

std::vector<std::int32_t> read_allowed_tokens(const json& object, int vocab_size) {
  const json* value = find_field(object, "allowed_token_ids");
  if (!value) return {};
  std::vector<std::int32_t> ids =
      read_ids(*value, "allowed_token_ids", static_cast<std::size_t>(vocab_size), vocab_size);
  if (ids.empty()) refuse("allowed_token_ids", "expected at least one token id, got none");
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// As vLLM reads them: a word at the beginning of a text, and behind a space if that is other tokens of the same number.
std::vector<std::vector<std::int32_t>> read_bad_words(const json& object, const ServedModel& model) {
  std::vector<std::vector<std::int32_t>> words;
  for (const std::string& word : read_strings(object, "bad_words", kMaxBadWords, kMaxBadWordBytes)) {
    const auto ids = [&](const std::string& text) {
      return encode_prompt(text, "bad_words", model, {.add_special_tokens = false});
    };
    const std::string text = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    const std::vector<std::int32_t> plain = ids(text), spaced = ids(" " + text);
    if (text.empty() || plain.empty()) refuse("bad_words", "expected words that are more than spaces, got {}", word);
    words.push_back(plain);
    if (spaced.size() == plain.size() && spaced != plain) words.push_back(spaced);
  }
  return words;
}

SamplingParams read_sampling(const json& object, const ServedModel& model) {
  SamplingParams p = model.defaults.sampling;
  p.temperature = read_float(object, "temperature", p.temperature);
  p.top_p = read_float(object, "top_p", p.top_p);
  p.min_p = read_float(object, "min_p", p.min_p);
  // In vLLM's API -1 means all tokens.
  p.top_k = std::max(0, read_int(object, "top_k", -1, std::numeric_limits<int>::max(), p.top_k));
  p.presence_penalty = read_float(object, "presence_penalty", p.presence_penalty);
  p.frequency_penalty = read_float(object, "frequency_penalty", p.frequency_penalty);
  p.repetition_penalty = read_float(object, "repetition_penalty", p.repetition_penalty);
  p.min_tokens = read_int(object, "min_tokens", 0, model.max_positions, 0);
  p.logit_bias = read_logit_bias(object, model.vocab_size);
  p.allowed_tokens = read_allowed_tokens(object, model.vocab_size);
  p.bad_words = read_bad_words(object, model);
  try {
    validate(p);
  } catch (const Error& error) {  // its message begins with the field
    const std::string message = error.what();
    throw ApiError(400, message.substr(0, message.find(':')), message);
  }
  return p;
}

}  // namespace

std::vector<Request> engine_requests(const GenerationRequest& request, const std::vector<std::int32_t>& eos_ids) {
  std::random_device random;
  std::vector<Request> requests;
  for (std::size_t choice = 0; choice < request.choices(); ++choice) {
    Request r;
    r.prompt = request.prompts[choice / request.n];
    r.max_tokens = std::max(request.max_tokens, 1);
    if (!request.ignore_eos) r.stop_ids = eos_ids;
    r.stop_ids.insert(r.stop_ids.end(), request.stop_ids.begin(), request.stop_ids.end());
    for (const auto& [id, text] : request.stop_tokens) r.stop_ids.push_back(id);
    r.priority = request.priority;
    r.cache_salt = request.cache_salt;
    r.sampling = request.sampling;
    const std::uint64_t j = choice % request.n;
    const std::uint64_t seed = request.seed.value_or(std::uint64_t{random()} << 32 | random());
    r.sampling.seed = j == 0 ? seed : random_bits(seed, j);
    r.constraint = request.constraint;
    r.reasoning = request.reasoning_marks;
    r.route = request.route;
    requests.push_back(std::move(r));
  }
  return requests;
}

std::size_t reply_bytes(const GenerationRequest& request) {
  // A token's text; one entry of its logprobs; its id in a receipt.
  constexpr std::size_t kTokenBytes = 8, kReportBytes = 48, kPromptReportBytes = 72, kIdBytes = 7;
  std::size_t tokens = request.choices() * static_cast<std::size_t>(request.max_tokens);
  if (request.echo)
    for (const auto& prompt : request.prompts) tokens += request.n * prompt.size();
  const int named = std::max(request.sampling.logprobs, static_cast<int>(request.sampling.logprob_tokens.size()));
  const int reports = request.sampling.logprobs < 0 ? 0 : 2 + named;
  const std::size_t bytes = tokens * (kTokenBytes + kReportBytes * static_cast<std::size_t>(reports)) +
                            prompt_reports(request) * kPromptReportBytes + 3 * request.repeated.size() +
                            request.choices() * request.echoed.size();
  if (!request.receipt) return bytes;
  for (const auto& prompt : request.prompts) tokens += prompt.size();
  return bytes + tokens * kIdBytes + request.constraint.rule.size() + request.route_text.size();
}

std::uint64_t read_cache_salt(const json& object) {
  const std::vector<std::string> salt = read_strings(object, "cache_salt", 1, kMaxSaltBytes);
  if (salt.empty()) return 0;
  static const std::string kSecret = [] {
    std::random_device random;
    return fmt::format("{} {} {} {} ", random(), random(), random(), random());
  }();
  Digest digest;
  digest.add(kSecret + salt.front());
  return digest.value() | 4;  // the lowest two bits do not count
}

void check_model(const json& object, const ServedModel& model) {
  const json* value = find_field(object, "model");
  if (!value) return;
  if (!value->is_string()) refuse("model", "expected a string, got {}", excerpt(*value));
  if (value->get_ref<const std::string&>() != model.name)
    throw ApiError(404, "model",
                   fmt::format("The model `{}` does not exist: this server has `{}`.",
                               shorten(value->get<std::string>()), model.name));
}

void read_common(const json& object, const ServedModel& model, GenerationRequest& request) {
  check_model(object, model);
  check_fields(object, request.api);
  request.n = read_int(object, "n", 1, static_cast<int>(model.max_choices), 1);
  if (read_int(object, "best_of", 1, static_cast<int>(model.max_choices), request.n) != request.n)
    refuse("best_of", "expected n = {} (more choices than that are not supported), got {}", request.n,
           excerpt(object.at("best_of")));
  request.sampling = read_sampling(object, model);
  request.seed = read_seed(object);
  request.stop = read_strings(object, "stop", kMaxStopStrings, kMaxStopBytes);
  for (const std::string& text : request.stop)
    if (const auto id = model.tokenizer.token_to_id(text); id && model.tokenizer.is_special(*id))
      request.stop_tokens.emplace(*id, text);
  request.include_stop = read_bool(object, "include_stop_str_in_output", false);
  if (const json* ids = find_field(object, "stop_token_ids"))
    request.stop_ids = read_ids(*ids, "stop_token_ids", kMaxStopIds, model.vocab_size);
  request.ignore_eos = read_bool(object, "ignore_eos", false);
  request.skip_special_tokens = read_bool(object, "skip_special_tokens", true);
  request.return_ids = read_bool(object, "return_token_ids", false);
  request.tokens_as_ids = read_bool(object, "return_tokens_as_token_ids", false);
  request.stream = read_bool(object, "stream", false);
  read_stream_options(object, request.stream, request);
  request.prompt_logprobs = read_prompt_logprobs(object, request.stream, model);
  request.priority = read_int(object, "priority", 1 - kMaxPriority, kMaxPriority, 0);
  request.cache_salt = read_cache_salt(object);
  if (request.api == Api::kChat) request.tools = read_tool_use(object, model.tool_syntax);
  request.constraint = read_constraint(object, request.tools, model);
  if (request.constraint.kind != Constraint::Kind::kNone && request.ignore_eos && request.stop_ids.empty() &&
      request.stop_tokens.empty())
    refuse("ignore_eos", "expected false, or a stop token of the request that can end the text that a rule allows");
  request.route = read_route(object, model);
  request.receipt = read_bool(object, "receipt", false);
  if (request.receipt && !model.no_receipts.empty()) refuse("receipt", "{}", model.no_receipts);
  if (request.receipt && request.route) request.route_text = object.at("foe_route").get<std::string>();
}

std::vector<std::int32_t> encode_prompt(const std::string& text, const char* field, const ServedModel& model,
                                        EncodeOptions options) {
  // Tokenising takes time, so a text that cannot fit is refused before.
  const std::size_t most = model.tokenizer.bytes_per_token() * static_cast<std::size_t>(model.max_positions);
  if (most > 0 && text.size() > most)
    refuse(field,
           "this model's maximum context length is {} tokens, which are at most {} bytes of text; the prompt has {}",
           model.max_positions, most, text.size());
  try {
    std::vector<std::int32_t> ids = model.tokenizer.encode(text, options);
    model.tokenizer.check_ids(ids, model.vocab_size);
    return ids;
  } catch (const Error& error) {
    throw ApiError(400, field, error.what());
  }
}

void read_logprob_tokens(const json& object, const ServedModel& model, SamplingParams& sampling) {
  constexpr const char* kField = "logprob_token_ids";
  const json* value = find_field(object, kField);
  if (!value) return;
  std::vector<std::int32_t>& ids = sampling.logprob_tokens;
  ids = read_ids(*value, kField, kMaxLogprobTokens, model.vocab_size);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (!ids.empty() && sampling.logprobs < 0) refuse(kField, "expected it only with logprobs");
}

std::vector<std::int32_t> truncated(const json& object, const ServedModel& model, std::vector<std::int32_t> ids) {
  const int most = read_int(object, "truncate_prompt_tokens", 1, model.max_positions, model.max_positions);
  const json* side = find_field(object, "truncation_side");
  if (side && *side != "left" && *side != "right")
    refuse("truncation_side", "expected left or right, got {}", excerpt(*side));
  if (!find_field(object, "truncate_prompt_tokens") || ids.size() <= static_cast<std::size_t>(most)) return ids;
  if (side && *side == "right")
    ids.resize(static_cast<std::size_t>(most));
  else
    ids.erase(ids.begin(), ids.end() - most);
  return ids;
}

void check_size(const GenerationRequest& request, const ServedModel& model) {
  const char* field = request.api == Api::kChat ? "messages" : "prompt";
  if (request.choices() > model.max_choices)
    refuse("n", "expected at most {} choices in a request, got {} for each of {} prompts", model.max_choices, request.n,
           request.prompts.size());
  for (const auto& prompt : request.prompts) {
    if (prompt.empty()) refuse(field, "expected at least one token, got none");
    if (prompt.size() + std::max(request.max_tokens, 1) > static_cast<std::size_t>(model.max_positions))
      refuse(field,
             "this model's maximum context length is {} tokens, but {} were requested ({} in the prompt, {} for the "
             "answer)",
             model.max_positions, prompt.size() + request.max_tokens, prompt.size(), request.max_tokens);
  }
  if (const std::size_t reports = prompt_reports(request); reports > kMaxPromptLogprobs)
    refuse("prompt_logprobs", "expected at most {} tokens to be named for all places of the prompts, got {}",
           kMaxPromptLogprobs, reports);
  if (request.route) {
    if (request.prompts.size() != 1)
      refuse("foe_route", "expected one prompt, which it is of, got {}", request.prompts.size());
    try {
      check_tokens(*request.route, request.prompts.front().tokens());
    } catch (const Error& error) {
      throw ApiError(400, "foe_route", error.what());
    }
  }
  if (request.sampling.min_tokens > request.max_tokens)
    refuse("min_tokens", "expected at most max_tokens = {}, got {}", request.max_tokens, request.sampling.min_tokens);
}

}  // namespace foe
