#include "tokenizer/gguf_tokenizer.h"

#include <algorithm>
#include <map>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/golden_files.h"
#include "tokenizer/decoder.h"
#include "tokenizer/tokenizer.h"
#include "weights/gguf_bytes.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Ids = std::vector<std::int32_t>;

constexpr int kNormal = 1, kUnknown = 2, kControl = 3, kUser = 4, kByte = 6;

// The arrays of a file.
struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<float> scores;
  std::vector<std::string> merges;

  void set(std::size_t id, const std::string& name, int type) {
    if (tokens.size() <= id) {
      tokens.resize(id + 1);
      types.resize(id + 1, 5);  // unused
      scores.resize(id + 1);
    }
    tokens[id] = name;
    types[id] = type;
  }
  GgufBytes& write(GgufBytes& file, const std::string& model) const {
    file.text("tokenizer.ggml.model", model)
        .texts("tokenizer.ggml.tokens", tokens)
        .i32s("tokenizer.ggml.token_type", types);
    if (model == "llama") return file.f32s("tokenizer.ggml.scores", scores);
    return file.texts("tokenizer.ggml.merges", merges);
  }
};

// What llama.cpp's converter makes of a tokenizer.json.
Vocabulary vocabulary_of(const json& file) {
  Vocabulary vocabulary;
  const json& model = file["model"];
  for (const auto& [name, id] : model["vocab"].items())
    vocabulary.set(id, name, model["byte_fallback"] == true && named_byte(name) ? kByte : kNormal);
  for (const json& token : file["added_tokens"])
    vocabulary.set(token["id"], token["content"], token["special"] == true ? kControl : kUser);
  for (const json& pair : model["merges"]) {
    const std::string text =
        pair.is_string() ? pair.get<std::string>() : pair[0].get<std::string>() + " " + pair[1].get<std::string>();
    vocabulary.merges.push_back(text);
  }
  return vocabulary;
}

GgufHeader parse(const std::string& bytes) {
  return parse_gguf_header(std::as_bytes(std::span(bytes)), "m.gguf");
}

Tokenizer tokenizer_of(const std::string& bytes) {
  const GgufHeader header = parse(bytes);
  return Tokenizer::from_spec(read_gguf_tokenizer(header.metadata));
}

struct Named {
  const char *golden, *pre;
};

class GgufByteLevel : public testing::TestWithParam<Named> {};

TEST_P(GgufByteLevel, GivesTheLibrarysIdsAndTexts) {
  const std::string name = GetParam().golden;
  const json file = read_golden(name + ".json"), golden = read_golden(name + ".cases.json");
  GgufBytes bytes;
  vocabulary_of(file).write(bytes, "gpt2").text("tokenizer.ggml.pre", GetParam().pre);
  if (!golden["prefix"].empty())
    bytes.u32("tokenizer.ggml.bos_token_id", golden["prefix"][0]).flag("tokenizer.ggml.add_bos_token", true);
  if (!golden["suffix"].empty())
    bytes.u32("tokenizer.ggml.eos_token_id", golden["suffix"][0]).flag("tokenizer.ggml.add_eos_token", true);
  const Tokenizer tokenizer = tokenizer_of(bytes.file());
  ASSERT_FALSE(golden["cases"].empty());
  for (const json& expected : golden["cases"]) {
    const std::string text = expected["text"];
    SCOPED_TRACE(expected["text"].dump());
    const Ids ids = expected["ids"];
    Ids all = golden["prefix"];
    all.insert(all.end(), ids.begin(), ids.end());
    all.insert(all.end(), golden["suffix"].begin(), golden["suffix"].end());
    EXPECT_EQ(tokenizer.encode(text), all);
    EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}),
              expected.value("raw", ids));
    EXPECT_EQ(tokenizer.decode(ids), expected.value("decoded", text));
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgufByteLevel,
                         testing::Values(Named{"gpt2", "gpt-2"}, Named{"llama3", "llama-bpe"}, Named{"qwen2", "qwen2"},
                                         Named{"olmoe", "olmo"}, Named{"smollm", "smollm"}),
                         [](const auto& name) { return std::string(name.param.golden); });

// A vocabulary of SentencePiece has scores in the place of merges. Its tokenizer.json has a merge for each way to cut a
// token into two, the best score first, and among those of one token the smaller ids first
// (transformers, convert_slow_tokenizer.py, generate_merges).
json merges_of(const json& vocab, const std::map<std::string, float>& scores) {
  struct Merge {
    float score;
    int left, right;
    std::string pair;
  };
  std::vector<Merge> merges;
  for (const auto& [name, score] : scores)
    for (std::size_t cut = 1; cut < name.size(); ++cut) {
      const std::string left = name.substr(0, cut), right = name.substr(cut);
      if ((static_cast<unsigned char>(name[cut]) & 0xc0) == 0x80 || !vocab.contains(left) || !vocab.contains(right))
        continue;
      merges.push_back({score, vocab[left], vocab[right], left + " " + right});
    }
  std::ranges::stable_sort(merges, [](const Merge& a, const Merge& b) {
    return std::tuple(-a.score, a.left, a.right) < std::tuple(-b.score, b.left, b.right);
  });
  json pairs = json::array();
  for (const Merge& merge : merges) pairs.push_back(merge.pair);
  return pairs;
}

TEST(GgufTokenizer, ScoresGiveTheIdsOfTheirMerges) {
  for (const char* name : {"llama2", "gemma"}) {
    json file = read_golden(std::string(name) + ".json");
    if (name == std::string("gemma")) file["added_tokens"].erase(3);  // a word that is an added token, too
    Vocabulary vocabulary = vocabulary_of(file);
    vocabulary.types[0] = kUnknown;
    std::map<std::string, float> scores;
    for (std::size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
      std::string word = vocabulary.merges[rank];
      word.erase(word.find(' ', 1), 1);
      const auto id = file["model"]["vocab"][word].get<std::size_t>();
      if (scores.emplace(word, -static_cast<float>(rank) - 1).second) vocabulary.scores[id] = scores[word];
    }
    file["model"]["merges"] = merges_of(file["model"]["vocab"], scores);
    const Tokenizer expected = Tokenizer::from_json(file.dump());
    GgufBytes bytes;
    vocabulary.write(bytes, "llama")
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .flag("tokenizer.ggml.add_space_prefix", name == std::string("llama2"));
    const Tokenizer tokenizer = tokenizer_of(bytes.file());
    const json golden = read_golden(std::string(name) + ".cases.json");
    for (const json& entry : golden["cases"]) {
      const std::string text = entry["text"];
      SCOPED_TRACE(entry["text"].dump());
      const Ids ids = expected.encode(text);
      EXPECT_EQ(tokenizer.encode(text), ids);
      EXPECT_EQ(tokenizer.decode(ids), expected.decode(ids));
    }
    EXPECT_THAT(tokenizer.end_ids({}), ElementsAre(2));
  }
}

Vocabulary bytes_alone() {
  Vocabulary vocabulary = vocabulary_of(read_golden("gpt2.json"));
  return vocabulary;
}

TEST(GgufTokenizer, RefusesWhatItDoesNotKnow) {
  const Vocabulary good = bytes_alone();
  const auto refused = [](const GgufBytes& file, const std::string& message) {
    EXPECT_THAT([&] { tokenizer_of(file.file()); }, ThrowsMessage<Error>(HasSubstr(message)));
  };
  const auto with = [&](const Vocabulary& vocabulary, const char* pre = "gpt-2", const char* model = "gpt2") {
    GgufBytes file;
    vocabulary.write(file, model).text("tokenizer.ggml.pre", pre);
    return file;
  };
  EXPECT_NO_THROW(tokenizer_of(with(good).file()));
  refused(with(good, "viking"), "m.gguf: tokenizer.ggml.pre: expected a pre-tokenizer that foe knows (gpt-2, ");
  refused(with(good, "gpt-2", "bert"), "m.gguf: tokenizer.ggml.model: expected gpt2 or llama, got 'bert'");
  refused(GgufBytes(), "tokenizer.ggml.model: expected gpt2 or llama, got none");
  refused(GgufBytes().text("tokenizer.ggml.model", "gpt2"), "tokenizer.ggml.tokens: expected an array of strings");
  Vocabulary bad = good;
  bad.types.pop_back();
  refused(with(bad), "tokenizer.ggml.token_type: expected 561 numbers, as there are tokens, got 560");
  bad = good;
  bad.types[3] = 7;
  refused(with(bad), "tokenizer.ggml.token_type: expected types from 1 to 6, got 7");
  bad = good;
  bad.tokens[3] = bad.tokens[4];
  refused(with(bad), "tokenizer.ggml.tokens: expected each word once");
  bad = good;
  bad.tokens[3] = "\xff";
  refused(with(bad), "tokenizer.ggml.tokens: token 3");
  bad.tokens[3] = std::string(5000, 'a');
  refused(with(bad), "tokens of at most 4096 bytes, got 5000 of id 3");
  bad = good;
  bad.merges[0] = "ab";
  refused(with(bad), "tokenizer.ggml.merges: expected two tokens with a space between them, got 'ab'");
  refused(with(good).u32("tokenizer.ggml.eos_token_id", 561),
          "eos_token_id: expected an id of the 561 tokens, got 561");
  bad = good;
  bad.scores[5] = INFINITY;
  refused(with(bad, "", "llama"), "tokenizer.ggml.scores: expected finite scores, got inf");
}

// llama.cpp writes the largest number where there is no such token.
TEST(GgufTokenizer, NoEndIsNone) {
  GgufBytes file;
  bytes_alone().write(file, "gpt2").text("tokenizer.ggml.pre", "gpt-2").u32("tokenizer.ggml.eos_token_id", UINT32_MAX);
  EXPECT_THAT(tokenizer_of(file.file()).end_ids({}), ElementsAre());
}

}  // namespace
}  // namespace foe
