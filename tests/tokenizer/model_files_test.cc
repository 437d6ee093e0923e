// The files of a model folder: which are read, and what the small ones add to the vocabulary.
#include "tokenizer/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/text_file.h"
#include "text/golden_files.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tiktoken_file.h"
#include "tokenizer/tokenizer.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Ids = std::vector<std::int32_t>;

constexpr std::size_t kLargest = 1u << 20;

class ModelFiles : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) const { place_.write(name, text); }
  void copy(const std::string& golden, const std::string& name) const {
    write(name, read_text_file(golden_path(golden), kLargest));
  }
  Tokenizer load() const { return Tokenizer::of_model(folder_); }
  void expect_refused(const std::string& message) const {
    EXPECT_THAT([&] { load(); }, ThrowsMessage<Error>(HasSubstr(message)));
  }

  const TempFolder place_;
  const std::string folder_ = place_.path();
};

TEST_F(ModelFiles, NamesWhatIsMissing) {
  EXPECT_FALSE(Tokenizer::exists(folder_));
  expect_refused(folder_ +
                 ": expected tokenizer.json, tokenizer.model, tiktoken.model or one *.tiktoken, got none of them");
  write("a.tiktoken", "");
  write("b.tiktoken", "");
  EXPECT_FALSE(Tokenizer::exists(folder_));
  copy("gpt2.json", "tokenizer.json");
  EXPECT_TRUE(Tokenizer::exists(folder_));
  EXPECT_EQ(load().vocab_size(), 561);
}

// A chat fine-tune names its tokens only in the config.
TEST_F(ModelFiles, TakesSpecialTokensOfTheConfig) {
  copy("gpt2.json", "tokenizer.json");
  const std::string text = "<|im_start|>er<|im_end|><tool>";
  EXPECT_THAT(load().end_ids({5}), ElementsAre(5));
  write("tokenizer_config.json", R"({"eos_token": {"content": "<|im_end|>", "normalized": false}, "pad_token": null,
    "bos_token": "er", "additional_special_tokens": ["<|im_start|>"],
    "added_tokens_decoder": {"562": {"content": "<tool>", "special": false}, "561": {"content": "<|im_end|>"}}})");
  const Tokenizer tokenizer = load();
  const auto er = tokenizer.token_to_id("er").value();
  EXPECT_LT(er, 560);
  EXPECT_THAT(tokenizer.encode(text), ElementsAre(563, er, 561, 562));
  EXPECT_TRUE(tokenizer.is_special(561));
  EXPECT_FALSE(tokenizer.is_special(562));
  EXPECT_TRUE(tokenizer.is_special(563));
  EXPECT_TRUE(tokenizer.is_special(er));
  EXPECT_THAT(tokenizer.end_ids({}), ElementsAre(561));
  EXPECT_THAT(tokenizer.end_ids({5}), ElementsAre(5, 561));
  EXPECT_THAT(tokenizer.end_ids({561, 5}), ElementsAre(561, 5));
  EXPECT_EQ(tokenizer.decode(Ids{561, 562, 563}, /*skip_special_tokens=*/true), "<tool>");
}

TEST_F(ModelFiles, TakesSpecialTokensOfOlderFiles) {
  copy("gpt2.json", "tokenizer.json");
  write("tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
  write("special_tokens_map.json", R"({"eos_token": {"content": "</s>"}, "pad_token": "<pad>"})");
  write("added_tokens.json", R"({"</s>": 562, "<call>": 561})");
  const Tokenizer tokenizer = load();
  EXPECT_THAT(tokenizer.encode("<call></s><pad>"), ElementsAre(561, 562, 563));
  EXPECT_THAT(tokenizer.end_ids({}), ElementsAre(562));
  EXPECT_FALSE(tokenizer.is_special(561));
  // Where the config has them all, transformers does not look at the older files.
  write("tokenizer_config.json", R"({"eos_token": "<|endoftext|>", "added_tokens_decoder": {}})");
  EXPECT_THAT(load().end_ids({}), ElementsAre(560));
}

TEST_F(ModelFiles, SaysWhatTheModelLacks) {
  copy("gpt2.json", "tokenizer.json");
  write("tokenizer_config.json", R"({"added_tokens_decoder": {"700": {"content": "<image>", "special": true}}})");
  const Tokenizer tokenizer = load();
  EXPECT_THAT(tokenizer.notes(562),
              ElementsAre("tokenizer_config.json: '<image>' has the id 561 in the tokenizer, and 700 "
                          "in the config"));
  EXPECT_THAT(tokenizer.notes(561), ElementsAre(testing::_,
                                                "the tokenizer has ids up to 561, but the model only has 561: "
                                                "texts that need others are refused"));
  const Ids ids = tokenizer.encode("a <image>");
  EXPECT_NO_THROW(tokenizer.check_ids(ids, 562));
  EXPECT_THAT([&] { tokenizer.check_ids(ids, 561); },
              ThrowsMessage<Error>("expected tokens of the model, which has 561, got 561 ('<image>')"));
}

TEST_F(ModelFiles, RefusesBadConfigs) {
  copy("gpt2.json", "tokenizer.json");
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "/tokenizer_config.json: expected an object, got []"},
      {R"({"eos_token": 5})", "/tokenizer_config.json: eos_token: expected a string, got 5"},
      {R"({"eos_token": ""})", "eos_token: expected a token of 1 to 4096 bytes, got 0"},
      {R"({"added_tokens_decoder": {"x": {"content": "a"}}})", "added_tokens_decoder: expected ids as keys, got 'x'"},
      {R"({"added_tokens_decoder": {"1": "a"}})", "added_tokens_decoder.1: expected an object, got \"a\""},
      {R"({"additional_special_tokens": [3]})", "additional_special_tokens[0]: expected a string, got 3"},
  };
  for (const auto& [config, message] : cases) {
    write("tokenizer_config.json", config);
    expect_refused(message);
  }
}

TEST_F(ModelFiles, ReadsControlPiecesInTexts) {
  copy("spm_bpe/tokenizer.model", "tokenizer.model");
  const Tokenizer tokenizer = load();
  const auto id = [&](const char* name) { return tokenizer.token_to_id(name).value(); };
  const auto encode = [&](const char* text) { return tokenizer.encode(text, {.add_special_tokens = false}); };
  EXPECT_THAT(tokenizer.encode("<s>"), ElementsAre(id("<s>"), id("<s>")));
  EXPECT_THAT(encode("</s><ctl><unk>"), ElementsAre(id("</s>"), id("<ctl>"), id("<unk>")));
  EXPECT_EQ(encode("a</s>a")[2], encode("a")[0]);
  EXPECT_THAT(tokenizer.end_ids({}), ElementsAre(id("</s>")));
  EXPECT_EQ(tokenizer.decode(encode("<s>the<ctl> end</s>"), true), "the  end");
  const Ids raw = tokenizer.encode("</s>", {.add_special_tokens = false, .parse_special = false});
  EXPECT_EQ(tokenizer.decode(raw, true), "</s>");
}

TEST_F(ModelFiles, PutsTokensWhereTheConfigSays) {
  copy("spm_bpe/tokenizer.model", "tokenizer.model");
  const int size = load().vocab_size();
  json config =
      json::parse(R"({"add_bos_token": false, "add_eos_token": true, "eos_token": "<|im_end|>", "legacy": false,
    "pad_token": "<renamed>",
    "added_tokens_decoder": {"3": {"content": "<renamed>", "special": true, "rstrip": true}}})");
  config["added_tokens_decoder"][std::to_string(size + 2)] = {{"content", "<|im_end|>"}, {"special", true}};
  write("tokenizer_config.json", config.dump());
  const Tokenizer tokenizer = load();
  EXPECT_EQ(tokenizer.vocab_size(), size + 3);
  EXPECT_THAT(tokenizer.encode("<renamed>  "), ElementsAre(3, size + 2));
  EXPECT_EQ(tokenizer.token_to_id("<ctl>"), std::nullopt);
  // "legacy": false puts no space behind a token.
  const Ids inside = tokenizer.encode("<renamed>he");
  EXPECT_EQ(inside[1], tokenizer.token_to_id("he").value());
  EXPECT_EQ(tokenizer.encode("he")[0], tokenizer.token_to_id("\u2581he").value());
  config["added_tokens_decoder"]["4"] = {{"content", "<renamed>"}};
  write("tokenizer_config.json", config.dump());
  expect_refused("'<renamed>' has the id 4, but also 3");
  write("tokenizer_config.json", R"({"added_tokens_decoder": {"2147483647": {"content": "<far>"}}})");
  expect_refused("added_tokens_decoder: expected ids up to ");
}

TEST_F(ModelFiles, ReadsTiktokenWhereThePatternIsKnown) {
  copy("kimi/tiktoken.model", "any.tiktoken");
  json config = read_golden("kimi/tokenizer_config.json");
  const json complete = config;
  const auto refuses = [&](const std::string& message) {
    write("tokenizer_config.json", config.dump());
    expect_refused(message);
    config = complete;
  };
  write("tokenizer_config.json", config.dump());
  EXPECT_THAT(load().encode("[BOS]<|im_end|>").size(), 2u);
  EXPECT_THAT(load().end_ids({}), ElementsAre(load().token_to_id("[EOS]").value()));
  config["tokenizer_class"] = "MyTokenizer";
  refuses("(TikTokenTokenizer, HYTokenizer), got 'MyTokenizer'; add the expression as \"pat_str\"");
  config.erase("tokenizer_class");
  refuses("got none; add the expression");
  config.erase("added_tokens_decoder");
  refuses("expected the special tokens in added_tokens_decoder of tokenizer_config.json, got none");
  config["pad_token"] = "[PAD]";
  refuses("expected an id of the special token '[PAD]' in added_tokens_decoder, got none");
  config["added_tokens_decoder"]["65"] = {{"content", "<new>"}};
  refuses("'<new>' has the id 65, which is that of bytes");
  config["tokenizer_class"] = "MyTokenizer";
  config["pat_str"] = ".";
  write("tokenizer_config.json", config.dump());
  EXPECT_EQ(load().encode("the mill").size(), 8u);
}

TEST(TiktokenFile, RefusesBadLines) {
  const TiktokenRules rules{"."};
  const auto refuses = [&](const std::string& text, const std::string& message) {
    EXPECT_THAT([&] { parse_tiktoken_file(text, rules); }, ThrowsMessage<Error>(HasSubstr(message))) << text;
  };
  refuses("", "expected a token for every byte, got none for 0x00");
  refuses("AA== 0\n", "expected a token for every byte, got none for 0x01");
  for (const char* line :
       {"AA==", "AA== x", "AA== -1", "AA== 1 2", "A 1", "AB== 1", " 1", "AA==  1", "AA== 99999999999"})
    refuses(std::string("AQ== 1\n") + line, "line 2: expected a token of 1 to 4096 bytes in base64 and its rank");
  EXPECT_TRUE(is_tiktoken_file("IQ== 0\nIg== 1\n"));
  EXPECT_FALSE(is_tiktoken_file("\n\x0a\n\x05<unk>"));
  EXPECT_FALSE(is_tiktoken_file(""));
}

// A field of a message: a number, or bytes.
std::string field(int number, std::uint64_t value) {
  return {static_cast<char>(number << 3), static_cast<char>(value)};
}
std::string field(int number, const std::string& bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string piece(const std::string& text, int type) {
  return field(1, field(1, text) + field(3, static_cast<std::uint64_t>(type)));
}

TEST(SentencePieceModel, RefusesBadModels) {
  const std::string unknown = piece("<unk>", 2), bpe = field(2, field(3, 2));
  ASSERT_NO_THROW(parse_sentencepiece_model(unknown + piece("a", 1) + bpe));
  const std::pair<std::string, const char*> cases[] = {
      {"", "expected one piece for what is unknown, got 0"},
      {unknown + piece("<u>", 2), "expected one piece for what is unknown, got 2"},
      {unknown + piece("a", 1) + piece("a", 4), "piece 2: expected every piece once, got 'a' twice"},
      {unknown + piece("", 1), "piece 1: expected 1 to 4096 bytes, got 0"},
      {unknown + piece("\xff", 1), "piece 1 must be valid UTF-8"},
      {unknown + piece("a", 7), "piece 1: expected a type of 1 to 6, got 7"},
      {unknown + field(1, field(1, "a") + "\x15" + std::string("\0\0\x80\x7f", 4)), "piece 1: expected a finite score"},
      {unknown + piece("a", 5) + bpe, "expected no unused pieces in a BPE model, got 'a'"},
      {unknown + field(2, field(3, 3)), "model_type: expected 1 (Unigram) or 2 (BPE), got 3"},
      {unknown + field(2, std::string("\x98\x02\x01")), "byte_fallback: expected 256 pieces of bytes, got 0"},
      {unknown + field(3, field(2, "abc")), "precompiled_charsmap: expected a trie"},
      {unknown + field(5, field(2, "abc")), "denormalizer_spec: expected none, got a precompiled_charsmap"},
      {unknown + "\x0b", "expected a SentencePiece model, got wire type 3 of Protocol Buffers"},
      {unknown + "\x0a\x09xx", "got a field of 9 bytes where 2 are left"},
      {unknown + "\x0a", "got a field of 1 bytes where 0 are left"},
      {unknown + "\x08" + std::string(11, '\xff'), "got a number of more than 64 bits"},
  };
  for (const auto& [bytes, message] : cases)
    EXPECT_THAT([&model = bytes] { parse_sentencepiece_model(model); }, ThrowsMessage<Error>(HasSubstr(message)))
        << message;
}

// Files that are cut, or have a wrong byte, are refused or read, and what they make of a text is ids.
TEST_F(ModelFiles, SurvivesDamagedModels) {
  for (const char* name : {"spm_bpe", "spm_suffix"}) {
    const std::string good = read_text_file(golden_path(std::string(name) + "/tokenizer.model"), kLargest);
    for (std::size_t at = 0; at < good.size(); at += 53) {
      std::string bad = good.substr(0, at % 2 ? at : good.size());
      if (at % 2 == 0) bad[at] = static_cast<char>(bad[at] ^ 0x15);
      write("tokenizer.model", bad);
      try {
        const Tokenizer tokenizer = load();
        tokenizer.decode(tokenizer.encode("The mill\u2581 \u00bd\ufdfa 12\n"));
      } catch (const Error&) {
      }
    }
  }
}

}  // namespace
}  // namespace foe
