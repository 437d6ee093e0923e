// Every check on a tokenizer.json, each taken by a file that is right but for one thing.
#include "tokenizer/tokenizer_json.h"

#include <cstdio>
#include <filesystem>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/golden_files.h"
#include "tokenizer/tokenizer.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

const json& good_file() {
  static const json file = read_golden("llama3.json");
  return file;
}

struct BadFile {
  std::string message;  // part of the error's
  std::function<void(json&)> spoil;
};

void expect_refused(const std::vector<BadFile>& cases) {
  ASSERT_NO_THROW(Tokenizer::from_json(good_file().dump()));
  for (const BadFile& c : cases) {
    json file = good_file();
    c.spoil(file);
    EXPECT_THAT([&] { Tokenizer::from_json(file.dump()); }, ThrowsMessage<Error>(HasSubstr(c.message))) << c.message;
  }
}

json added(std::int64_t id, const std::string& content) {
  return {{"id", id}, {"content", content}, {"special", true}};
}

TEST(TokenizerJson, RefusesWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "nul", "{\"a\":1,}", "[1] 2", "\"\xff\"", "\"\\ud800\"", "\xef\xbb\xbf"}) {
    EXPECT_THAT([&] { Tokenizer::from_json(text); }, ThrowsMessage<Error>(HasSubstr("the file: expected JSON, got: ")))
        << text;
  }
  EXPECT_THAT([] { Tokenizer::from_json("[]"); }, ThrowsMessage<Error>("the file: expected an object, got []"));
  EXPECT_THAT([] { Tokenizer::from_json(R"({"model":{"vocab":{"a":1,"a":2}}})"); },
              ThrowsMessage<Error>("the file: expected every key once, got \"a\" twice"));
}

TEST(TokenizerJson, RefusesDeepAndLargeFiles) {
  const auto nested = [](int depth) {
    const auto n = static_cast<std::size_t>(depth);
    return std::string(n, '[') + std::string(n, ']');
  };
  EXPECT_THAT([&] { Tokenizer::from_json(nested(1'000'000)); },
              ThrowsMessage<Error>("the file: expected JSON nested at most 32 deep, got deeper nesting"));
  EXPECT_THAT([&] { Tokenizer::from_json(std::string(1'000'000, '[')); }, ThrowsMessage<Error>(HasSubstr("32 deep")));
  std::string many = "[{}";
  for (int i = 0; i < 1'000'000; ++i) many += ",{}";  // no end is in sight where each looks at all before it
  EXPECT_THAT([&] { Tokenizer::from_json(many + "]"); },
              ThrowsMessage<Error>(HasSubstr("expected an object, got [{}")));
  EXPECT_THAT([&] { Tokenizer::from_json(std::string(kMaxTokenizerFileBytes + 1, ' ')); },
              ThrowsMessage<Error>("expected at most 67108864 bytes, got 67108865"));
}

TEST(TokenizerJson, RefusesUnsupportedModels) {
  expect_refused({
      {"version: '2.0' is not supported, expected 1.0", [](json& f) { f["version"] = "2.0"; }},
      {"version: expected a string, got 1", [](json& f) { f["version"] = 1; }},
      {"model: expected an object, got null", [](json& f) { f.erase("model"); }},
      {"model: expected an object, got [1]", [](json& f) { f["model"] = json::array({1}); }},
      {"model.type: expected a string, got 3", [](json& f) { f["model"]["type"] = 3; }},
      {"model.type: 'WordPiece' is not supported, expected BPE or Unigram",
       [](json& f) { f["model"]["type"] = "WordPiece"; }},
      {"model.type: 'WordPiece or WordLevel' is not supported",
       [](json& f) {
         f["model"].erase("type");
         f["model"].erase("merges");
       }},
      {"pre_tokenizer: expected no ByteLevel with a Unigram model", [](json& f) { f["model"]["type"] = "Unigram"; }},
      {"model.unk_token: expected a string, got 1", [](json& f) { f["model"]["unk_token"] = 1; }},
      {"model.dropout: '0.1' is not supported", [](json& f) { f["model"]["dropout"] = 0.1; }},
      {"model.dropout: '\"x\"' is not supported", [](json& f) { f["model"]["dropout"] = "x"; }},
      {"model.continuing_subword_prefix: '##'", [](json& f) { f["model"]["continuing_subword_prefix"] = "##"; }},
      {"model.end_of_word_suffix: '</w>'", [](json& f) { f["model"]["end_of_word_suffix"] = "</w>"; }},
      {"model.end_of_word_suffix: expected a string, got 3", [](json& f) { f["model"]["end_of_word_suffix"] = 3; }},
      {"model.byte_fallback: 'true' is not supported", [](json& f) { f["model"]["byte_fallback"] = true; }},
      {"model.ignore_merges: expected true or false, got 1", [](json& f) { f["model"]["ignore_merges"] = 1; }},
  });
}

TEST(TokenizerJson, RefusesBadVocabularies) {
  expect_refused({
      {"model.vocab: expected an object, got null", [](json& f) { f["model"].erase("vocab"); }},
      {"model.vocab: expected an object, got [\"a\"]", [](json& f) { f["model"]["vocab"] = json::array({"a"}); }},
      {"model.vocab['Ġa']: expected an integer, got \"7\"", [](json& f) { f["model"]["vocab"]["Ġa"] = "7"; }},
      {"model.vocab['Ġa']: expected an integer, got 7.0", [](json& f) { f["model"]["vocab"]["Ġa"] = 7.0; }},
      {"model.vocab['Ġa']: expected an integer", [](json& f) { f["model"]["vocab"]["Ġa"] = 18446744073709551615ull; }},
      {"model.vocab['Ġa']: expected an id from 0 to ", [](json& f) { f["model"]["vocab"]["Ġa"] = -1; }},
      {"model.vocab['Ġa']: expected an id from 0 to ", [](json& f) { f["model"]["vocab"]["Ġa"] = 100'000; }},
      {"model.vocab['Ġa']: expected an id from 0 to ", [](json& f) { f["model"]["vocab"]["Ġa"] = INT64_MAX; }},
      {"id 7: expected one token, got ", [](json& f) { f["model"]["vocab"]["Ġa"] = 7; }},
      {"model.vocab: expected a token of 1 to 4096 bytes, got 0", [](json& f) { f["model"]["vocab"][""] = 900; }},
      {"model.vocab: expected a token of 1 to 4096 bytes, got 4097",
       [](json& f) { f["model"]["vocab"][std::string(4097, 'a')] = 900; }},
      {"model.vocab: '▁the' (id 900) has characters outside the byte-level alphabet",
       [](json& f) { f["model"]["vocab"]["▁the"] = 900; }},
      {"model.vocab: ' the' (id 900) has characters outside", [](json& f) { f["model"]["vocab"][" the"] = 900; }},
  });
}

TEST(TokenizerJson, RefusesBadMerges) {
  expect_refused({
      {"model.merges: expected an array, got null", [](json& f) { f["model"].erase("merges"); }},
      {"model.merges[0]: expected a string, got 1", [](json& f) { f["model"]["merges"][0] = 1; }},
      {"model.merges[1]: expected a string, got [\"a\"]",
       [](json& f) { f["model"]["merges"][1] = json::array({"a"}); }},
      {"model.merges[0][1]: expected a string, got 2",
       [](json& f) {
         f["model"]["merges"][0] = json::array({"a", 2});
       }},
      {"model.merges[0]: expected two tokens with a space between them, got 'ab'",
       [](json& f) { f["model"]["merges"][0] = "ab"; }},
      {"model.merges[0]: expected two tokens with a space between them, got 'a b c'",
       [](json& f) { f["model"]["merges"][0] = "a b c"; }},
      {"model.merges[0]: expected tokens of the vocabulary, got 'a▁'",
       [](json& f) {
         f["model"]["merges"][0] = json::array({"a", "▁"});
       }},
      {"model.merges[0]: expected tokens of the vocabulary, got 'zq'",
       [](json& f) { f["model"]["merges"][0] = "z q"; }},
      {"model.merges[0]: expected tokens of the vocabulary, got 'th'",  // "the" is a token, "th" no longer
       [](json& f) {
         f["model"]["vocab"]["the"] = 800;
         f["model"]["vocab"].erase("th");
         f["model"]["merges"] = json::array({json::array({"th", "e"})});
       }},
  });
}

TEST(TokenizerJson, RefusesBadUnigramModels) {
  const json good = read_golden("t5.json");
  const std::vector<BadFile> cases = {
      {"model.vocab: expected an array, got {}", [](json& f) { f["model"]["vocab"] = json::object(); }},
      {"model.vocab: expected tokens, got none", [](json& f) { f["model"]["vocab"] = json::array(); }},
      {"model.vocab[1]: expected at least 2 elements, got [\"a\"]",
       [](json& f) { f["model"]["vocab"][1] = json::array({"a"}); }},
      {"model.vocab[1][1]: expected a number, got \"b\"",
       [](json& f) {
         f["model"]["vocab"][1] = json::array({"a", "b"});
       }},
      {"expected tokens of at most 512 bytes, got 513: 'aaaa",
       [](json& f) {
         f["model"]["vocab"].push_back({std::string(513, 'a'), -1.0});
       }},
      {"model.unk_id: expected an id below ", [](json& f) { f["model"]["unk_id"] = f["model"]["vocab"].size(); }},
      {"model.unk_id: expected an id from 0 to ", [](json& f) { f["model"]["unk_id"] = -1; }},
  };
  for (const BadFile& c : cases) {
    json file = good;
    c.spoil(file);
    EXPECT_THAT([&] { Tokenizer::from_json(file.dump()); }, ThrowsMessage<Error>(HasSubstr(c.message))) << c.message;
  }
  json file = good;
  file["model"]["unk_id"] = nullptr;
  EXPECT_THAT([&] { Tokenizer::from_json(file.dump()).encode("a \u2603"); },
              ThrowsMessage<Error>(HasSubstr("expected characters of the vocabulary, as the tokenizer has no unknown "
                                             "token, got '\u2603'")));
}

TEST(TokenizerJson, KnowsAModelByItsMembers) {
  for (const char* name : {"llama3.json", "t5.json"}) {
    json file = read_golden(name);
    const std::string text = "The miller counted";
    const auto ids = Tokenizer::from_json(file.dump()).encode(text);
    file["model"].erase("type");
    EXPECT_EQ(Tokenizer::from_json(file.dump()).encode(text), ids);
  }
}

TEST(TokenizerJson, RefusesAnUnknownTokenThatIsNone) {
  json file = read_golden("llama2.json");
  file["model"]["unk_token"] = "[UNK]";
  EXPECT_THAT([&] { Tokenizer::from_json(file.dump()); },
              ThrowsMessage<Error>("model.unk_token: expected a token of the vocabulary, got '[UNK]'"));
}

// The library takes no notice of the ids of added tokens.
TEST(TokenizerJson, NumbersAddedTokensAsTheLibraryDoes) {
  const auto read = [](const std::vector<json>& tokens) {
    json file = read_golden("gpt2.json");
    for (const json& token : tokens) file["added_tokens"].push_back(token);
    return Tokenizer::from_json(file.dump());
  };
  const std::string text = "<|a|><|b|>";
  EXPECT_THAT(read({added(561, "<|a|>"), added(561, "<|a|>"), added(562, "<|b|>")}).encode(text),
              ElementsAre(561, 562));
  EXPECT_THAT(read({added(562, "<|b|>"), added(561, "<|a|>")}).encode(text), ElementsAre(562, 561));
  const Tokenizer hole = read({added(561, "<|a|>"), added(570, "<|b|>")});
  EXPECT_THAT(hole.encode(text), ElementsAre(561, 562));
  EXPECT_THAT(hole.notes(563), ElementsAre("added_tokens: '<|b|>' has the id 562 instead of 570: the `tokenizers` "
                                           "library numbers added tokens in the file's order"));
}

TEST(TokenizerJson, TakesBothFormsOfMerges) {
  json file = good_file();
  json strings = json::array({"#version: 0.2"});
  for (const json& pair : file["model"]["merges"]) {
    strings.push_back(pair[0].get<std::string>() + " " + pair[1].get<std::string>());
  }
  file["model"]["merges"] = strings;
  const Tokenizer old_form = Tokenizer::from_json(file.dump());
  const Tokenizer new_form = Tokenizer::from_json(good_file().dump());
  const std::string text = "The miller counted the sacks twice, and then a third time";
  EXPECT_EQ(old_form.encode(text), new_form.encode(text));
}

TEST(TokenizerJson, RefusesBadAddedTokens) {
  expect_refused({
      {"added_tokens: expected an array, got {}", [](json& f) { f["added_tokens"] = json::object(); }},
      {"added_tokens[0]: expected an object, got 1", [](json& f) { f["added_tokens"][0] = 1; }},
      {"added_tokens[0].content: expected a string, got null", [](json& f) { f["added_tokens"][0].erase("content"); }},
      {"added_tokens[0]: expected a token of 1 to 4096 bytes, got 0",
       [](json& f) { f["added_tokens"][0]["content"] = ""; }},
      {"added_tokens[0]: expected a token of 1 to 4096 bytes, got 4097",
       [](json& f) { f["added_tokens"][0]["content"] = std::string(4097, 'a'); }},
      {"added_tokens[0].id: expected an integer, got null", [](json& f) { f["added_tokens"][0].erase("id"); }},
      {"added_tokens[0].id: expected an id from 0 to ", [](json& f) { f["added_tokens"][0]["id"] = 100'000'000; }},
      {"added_tokens[0].special: expected true or false, got \"yes\"",
       [](json& f) { f["added_tokens"][0]["special"] = "yes"; }},
      {"id 707: expected one token, got ",  // the vocabulary has a hole, and the added token comes after as many
       [](json& f) {
         f["model"]["vocab"]["<|new|>"] = 707;
         f["added_tokens"].push_back(added(706, "<|newer|>"));
       }},
      {"added_tokens: 'é' is ambiguous: the vocabulary has it for other bytes",
       [](json& f) { f["added_tokens"].push_back(added(f["model"]["vocab"]["é"], "é")); }},
  });
}

// DeepSeek's vocabulary lists its control tokens too, with characters that are no bytes.
TEST(TokenizerJson, TakesControlTokensInTheVocabulary) {
  json file = good_file();
  file["added_tokens"] = json::array();
  file["post_processor"] = nullptr;
  file["model"]["vocab"]["<｜end▁of▁text｜>"] = 900;
  file["added_tokens"].push_back(added(900, "<｜end▁of▁text｜>"));
  file["model"]["vocab"][" "] = 901;
  file["added_tokens"].push_back(added(901, " "));
  const Tokenizer tokenizer = Tokenizer::from_json(file.dump());
  EXPECT_THAT(tokenizer.encode("<｜end▁of▁text｜> ", {.add_special_tokens = false}), ElementsAre(900, 901));
  // As text, the space is the byte's token.
  EXPECT_THAT(tokenizer.encode(" ", {.add_special_tokens = false, .parse_special = false}),
              ElementsAre(file["model"]["vocab"]["Ġ"].get<std::int32_t>()));
}

TEST(TokenizerJson, RefusesUnsupportedSteps) {
  const auto split = [](json change) {
    json step = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Isolated"}, {"invert", false}};
    step.merge_patch(change);
    return [step](json& f) { f["pre_tokenizer"]["pretokenizers"][0] = step; };
  };
  expect_refused({
      {"normalizer: 'StripAccents' is not supported, expected null, NFC",
       [](json& f) { f["normalizer"]["type"] = "StripAccents"; }},
      {"normalizer.content: expected at most 4096 bytes, got 4097",
       [](json& f) {
         f["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(4097, 'a')}};
       }},
      {"normalizer.precompiled_charsmap: expected base64, got something else",
       [](json& f) {
         f["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "*"}};
       }},
      {"precompiled_charsmap: expected a trie of four bytes or more in 3 bytes, got one of 0",
       [](json& f) {
         f["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "AAAA"}};
       }},
      {"normalizer.type: expected a string, got null", [](json& f) { f["normalizer"] = json::object(); }},
      {"normalizer: expected an object, got \"NFC\"", [](json& f) { f["normalizer"] = "NFC"; }},
      {"normalizer.normalizers: expected an array, got null", [](json& f) { f["normalizer"]["type"] = "Sequence"; }},
      {"normalizer.normalizers[1].strip_left: expected true or false, got null",
       [](json& f) {
         f["normalizer"] = json::parse(R"({"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Strip"}]})");
       }},
      {"decoder: expected ByteLevel in both the pre-tokenizer and the decoder, or in neither, got it in the decoder",
       [](json& f) { f.erase("pre_tokenizer"); }},
      {"got it in the decoder", [](json& f) { f["pre_tokenizer"]["pretokenizers"].erase(1); }},
      {"got it in the pre-tokenizer",
       [](json& f) {
         f["decoder"] = {{"type", "Fuse"}};
       }},
      {"pre_tokenizer: 'BertPreTokenizer' is not supported",
       [](json& f) { f["pre_tokenizer"]["type"] = "BertPreTokenizer"; }},
      {"pre_tokenizer.replacement: expected a string, got null",
       [](json& f) { f["pre_tokenizer"]["type"] = "Metaspace"; }},
      {"pre_tokenizer.replacement: expected one character, got 'ab'",
       [](json& f) {
         f["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "ab"}};
       }},
      {"pre_tokenizer.prepend_scheme: 'often' is not supported",
       [](json& f) {
         f["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "often"}};
       }},
      {"pre_tokenizer.prepend_scheme: expected never, as add_prefix_space is false, got 'first'",
       [](json& f) {
         f["pre_tokenizer"] = {
             {"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}, {"prepend_scheme", "first"}};
       }},
      {"pre_tokenizer.pretokenizers[2]: expected ByteLevel to come last, got 'Digits' after it",
       [](json& f) {
         f["pre_tokenizer"]["pretokenizers"].push_back({{"type", "Digits"}});
       }},
      {"pre_tokenizer.pretokenizers[0].behavior: 'Sideways' is not supported", split({{"behavior", "Sideways"}})},
      {"pre_tokenizer.pretokenizers[0].invert: expected true or false, got 0", split({{"invert", 0}})},
      {"pre_tokenizer.pretokenizers[0].pattern.Regex: expected a string, got 5", split({{"pattern", {{"Regex", 5}}}})},
      {"pre_tokenizer.pretokenizers[0].pattern.String: expected a string, got null",
       split({{"pattern", {{"Regex", nullptr}}}})},
      {"pre_tokenizer.pretokenizers[0].pattern.String: expected a text to find, got an empty one",
       split({{"pattern", {{"Regex", nullptr}, {"String", ""}}}})},
      {"regex: ", split({{"pattern", {{"Regex", "("}}}})},
      {"post_processor: 'BertProcessing' is not supported",
       [](json& f) {
         f["post_processor"] = {{"type", "BertProcessing"}};
       }},
      {"decoder: 'null' is not supported, expected ByteLevel", [](json& f) { f.erase("decoder"); }},
      {"decoder: 'WordPiece' is not supported", [](json& f) { f["decoder"]["type"] = "WordPiece"; }},
      {"decoder.decoders[1]: 'ByteLevel' is not supported, expected ByteLevel, once",
       [](json& f) {
         f["decoder"] = json::parse(R"({"type":"Sequence","decoders":[{"type":"ByteLevel"},{"type":"ByteLevel"}]})");
       }},
      {"decoder.decoders[1].stop: '1' is not supported, expected 0: the end of a text is not known early",
       [](json& f) {
         f["decoder"] = json::parse(
             R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":" ","start":0,"stop":1}]})");
       }},
      {"decoder.pattern.Regex: 'a' is not supported, expected a String",
       [](json& f) {
         f["decoder"] = {{"type", "Replace"}, {"pattern", {{"Regex", "a"}}}, {"content", ""}};
       }},
      {"decoder.decoders[1]: 'Replace' is not supported",
       [](json& f) {
         f["decoder"] = json::parse(R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace"}]})");
       }},
      {"decoder: expected a decoder, got an empty Sequence",
       [](json& f) {
         f["decoder"] = {{"type", "Sequence"}, {"decoders", json::array()}};
       }},
  });
}

TEST(TokenizerJson, RefusesBadTemplates) {
  const auto change = [](std::function<void(json&)> spoil) {
    return [spoil](json& f) { spoil(f["post_processor"]["processors"][1]); };
  };
  const std::string at = "post_processor.processors[1].";
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  expect_refused({
      {at + "single: expected an array, got null", change([](json& p) { p.erase("single"); })},
      {at + "single: expected the text (sequence A) once, got 0", change([](json& p) { p["single"] = json::array(); })},
      {at + "single: expected the text (sequence A) once, got 2",
       change([&](json& p) { p["single"].push_back(text); })},
      {at + "single[1].Sequence.id: 'B' is not supported",
       change([](json& p) { p["single"][1]["Sequence"]["id"] = "B"; })},
      {at + "single[0]: expected an object, got 1", change([](json& p) { p["single"][0] = 1; })},
      {at + "single[0].SpecialToken.id: expected a string, got 1",
       change([](json& p) { p["single"][0]["SpecialToken"]["id"] = 1; })},
      {at + "special_tokens.<s>: expected an object, got null",
       change([](json& p) { p["single"][0]["SpecialToken"]["id"] = "<s>"; })},
      {at + "special_tokens.<|begin_of_text|>.ids: expected an array, got 3",
       change([](json& p) { p["special_tokens"]["<|begin_of_text|>"]["ids"] = 3; })},
      {at + "special_tokens.<|begin_of_text|>.ids[0]: expected an id from 0 to ",
       change([](json& p) { p["special_tokens"]["<|begin_of_text|>"]["ids"][0] = -5; })},
      {"post_processor.special_tokens: expected ids of tokens, got 60000",
       change([](json& p) { p["special_tokens"]["<|begin_of_text|>"]["ids"][0] = 60000; })},
  });
}

// Each piece of a template may name the same long list.
TEST(TokenizerJson, BoundsTheIdsOfTemplates) {
  json file = good_file();
  json& processors = file["post_processor"]["processors"];
  json& ids = processors[1]["special_tokens"]["<|begin_of_text|>"]["ids"];
  const json begin = ids[0];
  while (ids.size() < kMaxTemplateIds / 4) ids.push_back(begin);
  json& single = processors[1]["single"];
  const json piece = single[0];
  for (int i = 0; i < 3; ++i) single.push_back(piece);  // behind the text
  EXPECT_EQ(Tokenizer::from_json(file.dump()).encode("").size(), kMaxTemplateIds);
  const std::string limit = "expected templates of at most 4096 ids in all, got more";
  json more = file;
  json& once_more = more["post_processor"]["processors"][1]["single"];
  for (int i = 0; i < 2; ++i) once_more.push_back(piece);  // the text is among the four behind the first
  EXPECT_THAT([&] { Tokenizer::from_json(more.dump()); }, ThrowsMessage<Error>(HasSubstr("ids: " + limit)));
  more = file;
  more["post_processor"]["processors"].push_back(processors[1]);
  EXPECT_THAT([&] { Tokenizer::from_json(more.dump()); }, ThrowsMessage<Error>(HasSubstr("single: " + limit)));
}

TEST(TokenizerJson, NestsTemplates) {
  json file = good_file();
  json& processors = file["post_processor"]["processors"];
  json outer = processors[1];
  std::swap(outer["single"][0], outer["single"][1]);
  processors.push_back(outer);  // (<|begin_of_text|> text) <|begin_of_text|>
  const std::int32_t begin = outer["special_tokens"]["<|begin_of_text|>"]["ids"][0];
  EXPECT_THAT(Tokenizer::from_json(file.dump()).encode(""), ElementsAre(begin, begin));
}

TEST(TokenizerJson, NamesTheFile) {
  const TempFolder place;
  const std::string& folder = place.path();
  EXPECT_THAT([&] { Tokenizer::load(folder + "/none.json"); },
              ThrowsMessage<Error>(folder + "/none.json: expected a file, got: No such file or directory"));
  EXPECT_THAT([&] { Tokenizer::load(folder); }, ThrowsMessage<Error>(folder + ": expected a file, got something else"));
  const std::string path = folder + "/tokenizer.json";
  place.write("tokenizer.json", "{}");
  EXPECT_THAT([&] { Tokenizer::load(path); }, ThrowsMessage<Error>(HasSubstr(path + ": model: expected")));
  std::filesystem::resize_file(path, kMaxTokenizerFileBytes + 1);  // sparse
  EXPECT_THAT([&] { Tokenizer::load(path); },
              ThrowsMessage<Error>(path + ": expected at most 67108864 bytes, got 67108865"));
}

}  // namespace
}  // namespace foe
