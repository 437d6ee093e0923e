#include "server/api/receipt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/api/recorded_reply.h"
#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

ReceiptModel model_of_receipts() {
  return {.name = "m",
          .weights = "w",
          .config = "c",
          .tokenizer = "t",
          .chat_template = "",
          .engine = {"bf16", "", "attention=bf16,experts=bf16,head=bf16", "bf16", "f32"}};
}

// What a server answers to this body, whose tokens are those of `text` for every choice.
json answer_with_receipt(const std::string& body, const std::string& text) {
  const GenerationRequest request = parse_completion_request(body, small_model());
  Exchange exchange(request);
  exchange.generation.give_receipt(model_of_receipts(), engine_requests(request, {560}));
  for (std::size_t i = 0; i < request.choices(); ++i) exchange.take(static_cast<int>(i), text, FinishReason::kLength);
  if (!request.stream) return json::parse(exchange.reply->responses.at(0).body);
  const std::vector<std::string> events = exchange.reply->events();
  for (std::size_t i = 0; i + 2 < events.size(); ++i)
    EXPECT_FALSE(json::parse(events[i]).contains("receipt")) << events[i];
  return json::parse(events.at(events.size() - 2));
}

const std::string kBody = R"({"prompt": [[1, 2, 3], [4]], "n": 1, "max_tokens": 2, "receipt": true, "seed": -1,
  "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.01, "presence_penalty": 0.5, "frequency_penalty": -0.5,
  "repetition_penalty": 1.1, "logit_bias": {"5": -3.5}, "allowed_token_ids": [1, 64, 65, 66], "bad_words": ["xyz"],
  "stop": ["\n\n"], "stop_token_ids": [9], "regex": "[a-z]*"})";

json receipt_of(const std::string& body = kBody) {
  return answer_with_receipt(body, "ab").at("receipt");
}

std::string receipt_refusal(const std::string& text) {
  try {
    parse_receipt(text, "r.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(Receipt, HasWhatDecidesTheTokensAndIsReadAgain) {
  const json receipt = receipt_of();
  EXPECT_EQ(receipt["object"], "foe.receipt");
  EXPECT_EQ(receipt["digests"]["weights"], "w");
  EXPECT_EQ(receipt["digests"]["request"].get<std::string>().size(), 64u);
  EXPECT_EQ(receipt["request"]["prompts"], json({{1, 2, 3}, {4}}));
  EXPECT_EQ(receipt["request"]["seeds"], json({"18446744073709551615", "18446744073709551615"}));
  EXPECT_EQ(receipt["request"]["stop_token_ids"], json({560, 9}));
  EXPECT_EQ(receipt["request"]["temperature"].get<float>(), 0.7f);
  EXPECT_EQ(receipt["request"]["constraint"]["rule"], "[a-z]*");
  EXPECT_EQ(receipt["choices"][1]["tokens"], json(gpt2_tokenizer().encode("ab")));
  const Receipt read = parse_receipt(receipt.dump(2), "r.json");
  EXPECT_EQ(receipt_text(read), receipt.dump());
  EXPECT_EQ(changed_member(read), "");
  const Request second = request_of(read, 1);
  EXPECT_EQ(second.prompt, Prompt({4}));
  EXPECT_EQ(second.output, gpt2_tokenizer().encode("ab"));
  EXPECT_EQ(second.sampling.seed, ~std::uint64_t{0});
  EXPECT_EQ(second.sampling.bad_words, parse_completion_request(kBody, small_model()).sampling.bad_words);
}

TEST(Receipt, IsInTheLastChunkOfAStream) {
  json body = json::parse(kBody);
  body["seed"] = 5;
  const json whole = receipt_of(body.dump());
  body["stream"] = true;
  const json last = answer_with_receipt(body.dump(), "ab");
  EXPECT_EQ(last["receipt"], whole);
  EXPECT_EQ(last["choices"][0]["finish_reason"], "length");
  body["stream_options"] = {{"include_usage", true}};
  const json usage = answer_with_receipt(body.dump(), "ab");
  EXPECT_EQ(usage["receipt"], whole);
  EXPECT_TRUE(usage["choices"].empty());
}

TEST(Receipt, IsThereOnlyIfAskedForAndIfOthersCanCheckIt) {
  EXPECT_FALSE(parse_completion_request(R"({"prompt": "a", "receipt": false})", small_model()).receipt);
  ServedModel model = small_model();
  model.no_receipts = "with --wire int8 answers depend on the number of ranks";
  try {
    parse_completion_request(kBody, model);
    FAIL();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.param(), "receipt");
    EXPECT_THAT(error.what(), HasSubstr("--wire int8"));
  }
}

// Every number and text of request and choices, each changed by itself.
TEST(Receipt, ShowsWhichMemberHasBeenChanged) {
  const json receipt = receipt_of();
  const json flat = receipt.flatten();
  int seen = 0;
  for (const auto& [path, value] : flat.items()) {
    const bool of_request = path.starts_with("/request/"), of_choices = path.starts_with("/choices/");
    if (!of_request && !of_choices) continue;
    json changed = receipt;
    json& at = changed[json::json_pointer(path)];
    if (value.is_number_integer()) at = value.get<int>() == 1 ? 2 : 1;
    if (value.is_number_float()) at = value.get<double>() + 0.25;
    if (value.is_boolean()) at = !value.get<bool>();
    if (value.is_string()) at = path.find("seeds") != path.npos ? "6" : value.get<std::string>() + "x";
    if (at == receipt[json::json_pointer(path)]) continue;  // empty lists
    std::string found;
    try {
      found = changed_member(parse_receipt(changed.dump(), "r"));
    } catch (const Error&) {  // an index, n, a kind, a reason
      found = of_request ? "request" : "choices";
    }
    EXPECT_EQ(found, of_request ? "request" : "choices") << path;
    ++seen;
  }
  EXPECT_GT(seen, 35);
}

// The name of the model decides no token, so it has a digest of its own, which receipts of version 1 do not have.
TEST(Receipt, ShowsThatTheModelsNameHasBeenChanged) {
  json receipt = receipt_of();
  receipt["model"] = "another";
  EXPECT_EQ(changed_member(parse_receipt(receipt.dump(), "r")), "model");
  receipt["version"] = 1;
  receipt["digests"].erase("model");
  const Receipt earlier = parse_receipt(receipt.dump(), "r");
  EXPECT_EQ(changed_member(earlier), "");
  EXPECT_EQ(receipt_text(earlier), receipt.dump());
}

// A budget is there only if there is one, so that receipts without one are those of earlier versions.
TEST(Receipt, HasTheBudgetOfReasoning) {
  const json without = receipt_of();
  EXPECT_FALSE(without["request"]["reasoning"].contains("budget"));
  Receipt receipt = parse_receipt(without.dump(), "r");
  EXPECT_EQ(receipt.common.reasoning.budget, -1);
  receipt.common.reasoning.budget = 7;
  const std::string text = receipt_text(receipt);
  EXPECT_EQ(json::parse(text)["request"]["reasoning"]["budget"], 7);
  const Receipt again = parse_receipt(text, "r");
  EXPECT_EQ(again.common.reasoning.budget, 7);
  EXPECT_EQ(changed_member(again), "");
  json changed = json::parse(text);
  changed["request"]["reasoning"].erase("budget");
  EXPECT_EQ(changed_member(parse_receipt(changed.dump(), "r")), "request");
}

TEST(Receipt, RefusesWhatIsNone) {
  const json receipt = receipt_of();
  const std::string text = receipt.dump();
  for (std::size_t length = 0; length < text.size(); length += 7)
    EXPECT_THAT(receipt_refusal(text.substr(0, length)), HasSubstr("r.json")) << length;
  EXPECT_THAT(receipt_refusal("[]"), HasSubstr("expected a receipt"));
  EXPECT_THAT(receipt_refusal(R"({"choices": []})"), HasSubstr("expected a receipt"));
  const auto changed = [&](const char* path, const json& value) {
    json other = receipt;
    other[json::json_pointer(path)] = value;
    return receipt_refusal(other.dump());
  };
  EXPECT_THAT(changed("/version", 3), HasSubstr("version 1 to 2, got 3"));
  EXPECT_THAT(changed("/version", 0), HasSubstr("version 1 to 2, got 0"));
  EXPECT_THAT(changed("/version", 1), HasSubstr("r.json.digests: expected members of a receipt, got \"model\""));
  EXPECT_THAT(changed("/bits", "1"), HasSubstr("r.json.bits: expected an integer"));
  EXPECT_THAT(changed("/digests/algorithm", "md5"), HasSubstr("expected sha256"));
  EXPECT_THAT(changed("/request/prompts", json::array()), HasSubstr("r.json.choices: expected n = 1"));
  EXPECT_THAT(changed("/request/prompts/0/1", -1), HasSubstr("prompts[0][1]: expected 0 to 2147483647, got -1"));
  EXPECT_THAT(changed("/request/prompts/0/1", 1e300), HasSubstr("expected an integer"));
  EXPECT_THAT(changed("/request/prompts/0/1", 1ull << 40), HasSubstr("got 1099511627776"));
  EXPECT_THAT(changed("/request/temperature", 1e300), HasSubstr("a float can hold"));
  EXPECT_THAT(changed("/request/temperature", nullptr), HasSubstr("temperature: expected a number"));
  EXPECT_THAT(changed("/request/n", 1000000000), HasSubstr("expected n = 1000000000"));
  EXPECT_THAT(changed("/request/seeds/0", 5), HasSubstr("expected a string"));
  EXPECT_THAT(changed("/request/seeds/0", "18446744073709551616"), HasSubstr("64 bits in decimal digits"));
  EXPECT_THAT(changed("/request/logit_bias/0", json::array({1})), HasSubstr("an id and a number"));
  EXPECT_THAT(changed("/request/constraint/kind", "x"), HasSubstr("a kind of constraint"));
  EXPECT_THAT(changed("/request/stop/0", ""), HasSubstr("got an empty one"));
  EXPECT_THAT(changed("/request/more", 1), HasSubstr("r.json.request: expected members of a receipt, got \"more\""));
  EXPECT_THAT(changed("/choices/0/more", 1), HasSubstr("choices[0]: expected members"));
  EXPECT_THAT(changed("/choices/0/tokens", "1"), HasSubstr("choices[0].tokens: expected an array"));
  EXPECT_THAT(changed("/choices/0/finish_reason", "end"), HasSubstr("stop or length"));
  EXPECT_THAT(receipt_refusal(std::string(kMaxReceiptBytes + 1, ' ')), HasSubstr("at most 67108864 bytes"));
}

TEST(Receipt, SaysWhereAnAnswerEnds) {
  Receipt receipt = parse_receipt(receipt_of().dump(), "r");
  const Tokenizer tokenizer = gpt2_tokenizer();
  const auto end = [&](const std::string& text, int max_tokens, std::vector<std::string> stop) {
    receipt.common.max_tokens = max_tokens;
    receipt.text.stop = std::move(stop);
    receipt.choices[0].tokens = tokenizer.encode(text);
    return end_of_answer(receipt, 0, tokenizer);
  };
  const std::size_t all = tokenizer.encode("ab cd").size();
  EXPECT_FALSE(end("ab cd", 100, {}).reason);
  EXPECT_EQ(end("ab cd", static_cast<int>(all), {}).reason, FinishReason::kLength);
  EXPECT_EQ(end("ab cd", 100, {"cd"}).reason, FinishReason::kStop);
  EXPECT_EQ(end("ab cd", 100, {"cd"}).tokens, all);
  EXPECT_LT(end("ab cd", 100, {"b"}).tokens, all);
  EXPECT_LT(end("ab cd", 1, {}).tokens, all);
  receipt.common.stop_ids = {tokenizer.encode("ab")[0]};
  EXPECT_EQ(end("ab cd", 100, {}).tokens, 1u);
  receipt.common.sampling.min_tokens = 1;
  receipt.common.constraint = {};
  EXPECT_FALSE(end("ab cd", 100, {}).reason);
}

TEST(Receipt, NamesTheTemplateForTools) {
  EXPECT_EQ(template_sha256({}), "");
  const std::string plain = template_sha256(ChatTemplate::parse("{{ messages[0].content }}"));
  EXPECT_EQ(plain.size(), 64u);
  EXPECT_NE(template_sha256(ChatTemplate::parse("{{ messages[0].content }} ")), plain);
}

}  // namespace
}  // namespace foe
