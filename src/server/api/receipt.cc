#include "server/api/receipt.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/sha256.h"
#include "base/strict_json.h"
#include "server/api/stop_strings.h"
#include "text/json_fields.h"

namespace foe {
namespace {

using Json = nlohmann::json;  // sorted by key

constexpr const char* kObject = "foe.receipt";
constexpr const char* kAlgorithm = "sha256";
constexpr int kNameDigestVersion = 2;  // the first with a digest of the model's name
constexpr std::int64_t kMostInt = std::numeric_limits<int>::max();

constexpr std::pair<Constraint::Kind, const char*> kKinds[] = {
    {Constraint::Kind::kNone, "none"},     {Constraint::Kind::kJsonObject, "json_object"},
    {Constraint::Kind::kRegex, "regex"},   {Constraint::Kind::kJsonSchema, "json_schema"},
    {Constraint::Kind::kChoice, "choice"}, {Constraint::Kind::kGrammar, "grammar"},
};

std::string canonical(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// --- writing ---

Json engine_json(const ReceiptEngine& engine) {
  return {{"dtype", engine.dtype},
          {"quantize", engine.quantize},
          {"formats", engine.formats},
          {"kv_dtype", engine.kv_dtype},
          {"attention", engine.attention}};
}

Json constraint_json(const Constraint& constraint) {
  const auto kind = std::ranges::find(kKinds, constraint.kind, &std::pair<Constraint::Kind, const char*>::first);
  return {{"kind", kind->second}, {"rule", constraint.rule}, {"open_objects", constraint.open_objects}};
}

// A seed has 64 bits, which numbers of JSON lose in many programs, so it is a text.
Json seeds_json(const std::vector<ReceiptChoice>& choices) {
  Json seeds = Json::array();
  for (const ReceiptChoice& choice : choices) seeds.push_back(std::to_string(choice.seed));
  return seeds;
}

Json biases_json(const std::vector<LogitBias>& biases) {
  Json pairs = Json::array();
  for (const LogitBias& bias : biases) pairs.push_back({bias.token, bias.bias});
  return pairs;
}

// Receipts without a budget are those of the time before there were any.
Json reasoning_json(const ReasoningMarks& marks) {
  Json value{{"begin", marks.begin}, {"end", marks.end}, {"begun", marks.begun}};
  if (marks.budget >= 0) value["budget"] = marks.budget;
  return value;
}

// All that decides the tokens.
Json request_json(const Receipt& receipt) {
  const Request& r = receipt.common;
  const SamplingParams& p = r.sampling;
  Json prompts = Json::array();
  for (const Prompt& prompt : receipt.prompts) prompts.push_back(prompt.tokens());
  return {{"engine", engine_json(receipt.model.engine)},
          {"prompts", std::move(prompts)},
          {"n", receipt.choices.size() / receipt.prompts.size()},
          {"seeds", seeds_json(receipt.choices)},
          {"max_tokens", r.max_tokens},
          {"min_tokens", p.min_tokens},
          {"stop_token_ids", r.stop_ids},
          {"stop", receipt.text.stop},
          {"include_stop_str_in_output", receipt.text.include_stop},
          {"skip_special_tokens", receipt.text.skip_special_tokens},
          {"markers", receipt.text.markers},
          {"temperature", p.temperature},
          {"top_p", p.top_p},
          {"top_k", p.top_k},
          {"min_p", p.min_p},
          {"presence_penalty", p.presence_penalty},
          {"frequency_penalty", p.frequency_penalty},
          {"repetition_penalty", p.repetition_penalty},
          {"logit_bias", biases_json(p.logit_bias)},
          {"allowed_token_ids", p.allowed_tokens},
          {"bad_words", p.bad_words},
          {"constraint", constraint_json(r.constraint)},
          {"reasoning", reasoning_json(r.reasoning)},
          {"route", receipt.route}};
}

Json choices_json(const Receipt& receipt) {
  Json choices = Json::array();
  for (std::size_t i = 0; i < receipt.choices.size(); ++i)
    choices.push_back(
        {{"index", i}, {"tokens", receipt.choices[i].tokens}, {"finish_reason", to_string(receipt.choices[i].finish)}});
  return choices;
}

std::string name_digest(const Receipt& receipt) {
  return sha256(canonical(receipt.model.name));
}

Json receipt_json(const Receipt& receipt) {
  Json request = request_json(receipt), choices = choices_json(receipt);
  Json digests{{"algorithm", kAlgorithm},
               {"weights", receipt.model.weights},
               {"config", receipt.model.config},
               {"tokenizer", receipt.model.tokenizer},
               {"chat_template", receipt.model.chat_template},
               {"request", sha256(canonical(request))},
               {"choices", sha256(canonical(choices))}};
  if (receipt.version >= kNameDigestVersion) digests["model"] = name_digest(receipt);
  return {{"object", kObject},
          {"version", receipt.version},
          {"bits", receipt.bits},
          {"model", receipt.model.name},
          {"digests", std::move(digests)},
          {"request", std::move(request)},
          {"choices", std::move(choices)}};
}

// --- reading ---

int int_of(const JsonField& field, std::int64_t low = 0, std::int64_t high = kMostInt) {
  const std::int64_t value = field.integer();
  if (value < low || value > high) fail("{}: expected {} to {}, got {}", field.path, low, high, value);
  return static_cast<int>(value);
}

float float_of(const JsonField& field) {
  if (!field.value.is_number()) fail("{}: expected a number, got {}", field.path, excerpt(field.value));
  const double value = field.value.get<double>();
  if (!(std::abs(value) <= std::numeric_limits<float>::max()))
    fail("{}: expected a number that a float can hold, got {}", field.path, excerpt(field.value));
  return static_cast<float>(value);
}

std::vector<std::int32_t> ids_of(const JsonField& field) {
  std::vector<std::int32_t> ids;
  ids.reserve(field.array().size());
  for (std::size_t i = 0; i < field.array().size(); ++i) ids.push_back(int_of(field[i]));
  return ids;
}

std::uint64_t seed_of(const JsonField& field) {
  const std::string& text = field.string();
  std::uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error != std::errc() || end != text.data() + text.size())
    fail("{}: expected 64 bits in decimal digits, got {}", field.path, excerpt(field.value));
  return seed;
}

Constraint constraint_of(const JsonField& field) {
  const std::string& kind = field["kind"].string();
  const auto found = std::ranges::find(kKinds, kind, &std::pair<Constraint::Kind, const char*>::second);
  if (found == std::end(kKinds)) fail("{}: expected a kind of constraint, got '{}'", field["kind"].path, shorten(kind));
  return {found->first, field["rule"].string(), field["open_objects"].boolean()};
}

ReasoningMarks reasoning_of(const JsonField& marks) {
  const bool bounded = marks.value.is_object() && marks.value.contains("budget");
  return {int_of(marks["begin"], -1), int_of(marks["end"], -1), marks["begun"].boolean(),
          bounded ? int_of(marks["budget"]) : -1};
}

SamplingParams sampling_of(const JsonField& request) {
  SamplingParams p;
  p.temperature = float_of(request["temperature"]);
  p.top_p = float_of(request["top_p"]);
  p.top_k = int_of(request["top_k"]);
  p.min_p = float_of(request["min_p"]);
  p.presence_penalty = float_of(request["presence_penalty"]);
  p.frequency_penalty = float_of(request["frequency_penalty"]);
  p.repetition_penalty = float_of(request["repetition_penalty"]);
  p.min_tokens = int_of(request["min_tokens"]);
  const JsonField biases = request["logit_bias"], words = request["bad_words"];
  for (std::size_t i = 0; i < biases.array().size(); ++i) {
    if (biases[i].array().size() != 2)
      fail("{}: expected an id and a number, got {}", biases[i].path, excerpt(biases[i].value));
    p.logit_bias.push_back({int_of(biases[i][0]), float_of(biases[i][1])});
  }
  p.allowed_tokens = ids_of(request["allowed_token_ids"]);
  for (std::size_t i = 0; i < words.array().size(); ++i) p.bad_words.push_back(ids_of(words[i]));
  return p;
}

ReceiptText ending_of(const JsonField& request) {
  ReceiptText text{.stop = {},
                   .include_stop = request["include_stop_str_in_output"].boolean(),
                   .skip_special_tokens = request["skip_special_tokens"].boolean(),
                   .markers = ids_of(request["markers"])};
  const JsonField stop = request["stop"];
  for (std::size_t i = 0; i < stop.array().size(); ++i) {
    text.stop.push_back(stop[i].string());
    if (text.stop.back().empty()) fail("{}: expected a text, got an empty one", stop[i].path);
  }
  return text;
}

FinishReason finish_of(const JsonField& field) {
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength})
    if (field.string() == to_string(reason)) return reason;
  fail("{}: expected stop or length, got {}", field.path, excerpt(field.value));
}

ReceiptModel model_of(const JsonField& root) {
  const JsonField digests = root["digests"], engine = root["request"]["engine"];
  if (digests["algorithm"].string() != kAlgorithm)
    fail("{}: expected {}, got {}", digests["algorithm"].path, kAlgorithm, excerpt(digests["algorithm"].value));
  return {.name = root["model"].string(),
          .weights = digests["weights"].string(),
          .config = digests["config"].string(),
          .tokenizer = digests["tokenizer"].string(),
          .chat_template = digests["chat_template"].string(),
          .engine = {.dtype = engine["dtype"].string(),
                     .quantize = engine["quantize"].string(),
                     .formats = engine["formats"].string(),
                     .kv_dtype = engine["kv_dtype"].string(),
                     .attention = engine["attention"].string()}};
}

void read_choices(const JsonField& root, Receipt& receipt) {
  const JsonField request = root["request"], prompts = request["prompts"], seeds = request["seeds"];
  const JsonField choices = root["choices"];
  const std::size_t n = static_cast<std::size_t>(int_of(request["n"], 1)), count = choices.array().size();
  if (prompts.array().empty() || count % n != 0 || count / n != prompts.array().size() || seeds.array().size() != count)
    fail("{}: expected n = {} for each of {} prompts, and a seed for each, got {} and {} seeds", choices.path, n,
         prompts.array().size(), count, seeds.array().size());
  for (std::size_t i = 0; i < prompts.array().size(); ++i) receipt.prompts.emplace_back(ids_of(prompts[i]));
  receipt.common.max_tokens = int_of(request["max_tokens"]);
  receipt.common.stop_ids = ids_of(request["stop_token_ids"]);
  receipt.common.sampling = sampling_of(request);
  receipt.common.constraint = constraint_of(request["constraint"]);
  receipt.common.reasoning = reasoning_of(request["reasoning"]);
  for (std::size_t i = 0; i < count; ++i) {
    int_of(choices[i]["index"], static_cast<std::int64_t>(i), static_cast<std::int64_t>(i));
    receipt.choices.push_back(
        {seed_of(seeds[i]), ids_of(choices[i]["tokens"]), finish_of(choices[i]["finish_reason"])});
  }
}

// Throws Error for a member that receipts do not have.
void check_members(const Json& given, const Json& known, const std::string& path) {
  if (known.is_array() && given.is_array())
    for (std::size_t i = 0; i < given.size() && i < known.size(); ++i)
      check_members(given[i], known[i], fmt::format("{}[{}]", path, i));
  if (!known.is_object() || !given.is_object()) return;
  for (const auto& [name, value] : given.items()) {
    const auto found = known.find(name);
    if (found == known.end()) fail("{}: expected members of a receipt, got {}", path, excerpt(name));
    check_members(value, *found, path + "." + name);
  }
}

}  // namespace

std::string template_sha256(const ChatTemplate& chat_template) {
  if (!chat_template.present()) return "";
  const std::string plain = chat_template.source(), with_tools = chat_template.source(/*with_tools=*/true);
  Sha256 digest;
  digest.add(plain);
  if (with_tools != plain) digest.add(std::string(1, '\0') + with_tools);
  return digest.hex();
}

Receipt begin_receipt(const ReceiptModel& model, const GenerationRequest& request, const std::vector<Request>& choices,
                      std::vector<std::int32_t> markers) {
  Receipt receipt{.model = model,
                  .text = {.stop = request.stop,
                           .include_stop = request.include_stop,
                           .skip_special_tokens = request.skip_special_tokens,
                           .markers = std::move(markers)},
                  .prompts = request.prompts,
                  .common = choices.front(),
                  .choices = {},
                  .route = request.route_text};
  for (const Request& choice : choices) receipt.choices.push_back({.seed = choice.sampling.seed, .tokens = {}});
  receipt.common.max_tokens = request.max_tokens;  // may be 0
  return receipt;
}

Request request_of(const Receipt& receipt, std::size_t choice) {
  Request request = receipt.common;
  request.prompt = receipt.prompts[choice / (receipt.choices.size() / receipt.prompts.size())];
  request.output = receipt.choices[choice].tokens;
  request.sampling.seed = receipt.choices[choice].seed;
  return request;
}

std::string receipt_text(const Receipt& receipt) {
  return canonical(receipt_json(receipt));
}

Receipt parse_receipt(std::string_view text, const std::string& source) {
  if (text.size() > kMaxReceiptBytes)
    fail("{}: expected a receipt of at most {} bytes, got {}", source, kMaxReceiptBytes, text.size());
  const Json value = parse_strict_json(text, source);
  const JsonField root{value, source};
  if (!value.is_object() || root["object"].value != kObject)
    fail("{}: expected a receipt, with \"object\": \"{}\", got {}", source, kObject, excerpt(value));
  const int version = int_of(root["version"], 0);
  if (version < 1 || version > kReceiptVersion)
    fail("{}: expected a receipt of version 1 to {}, got {}", source, kReceiptVersion, version);
  const JsonField digests = root["digests"];
  Receipt receipt{.version = version,
                  .bits = int_of(root["bits"]),
                  .model = model_of(root),
                  .text = ending_of(root["request"]),
                  .prompts = {},
                  .common = {},
                  .choices = {},
                  .route = root["request"]["route"].string(),
                  .model_digest = version >= kNameDigestVersion ? digests["model"].string() : "",
                  .request_digest = digests["request"].string(),
                  .choices_digest = digests["choices"].string()};
  read_choices(root, receipt);
  check_members(value, receipt_json(receipt), source);
  return receipt;
}

std::string changed_member(const Receipt& receipt) {
  if (sha256(canonical(request_json(receipt))) != receipt.request_digest) return "request";
  if (sha256(canonical(choices_json(receipt))) != receipt.choices_digest) return "choices";
  if (receipt.version >= kNameDigestVersion && name_digest(receipt) != receipt.model_digest) return "model";
  return "";
}

// As Generation::take() and the scheduler end answers.
AnswerEnd end_of_answer(const Receipt& receipt, std::size_t index, const Tokenizer& tokenizer) {
  const Request choice = request_of(receipt, index);
  const auto has = [](const std::vector<std::int32_t>& ids, std::int32_t id) {
    return std::ranges::find(ids, id) != ids.end();
  };
  if (choice.max_tokens == 0) return {0, FinishReason::kLength};
  StreamDecoder decoder(tokenizer, receipt.text.skip_special_tokens);
  decoder.begin_after(choice.prompt.tokens());
  StopStrings stop(receipt.text.stop, receipt.text.include_stop);
  const int min_tokens = choice.sampling.min_tokens;
  for (std::size_t i = 0; i < choice.output.size(); ++i) {
    const std::int32_t token = choice.output[i];
    const bool may_stop = static_cast<int>(i) >= min_tokens || choice.constraint.kind != Constraint::Kind::kNone;
    if (may_stop && has(choice.stop_ids, token)) return {i + 1, FinishReason::kStop};
    const bool full = static_cast<int>(i) + 1 == choice.max_tokens;
    std::string text = has(receipt.text.markers, token) ? decoder.finish() + std::string(tokenizer.token_name(token))
                                                        : decoder.push(token);
    if (full) text += decoder.finish();
    if (static_cast<int>(i) >= min_tokens) stop.push(text);
    if (stop.stopped()) return {i + 1, FinishReason::kStop};
    if (full) return {i + 1, FinishReason::kLength};
  }
  return {choice.output.size(), {}};
}

}  // namespace foe
