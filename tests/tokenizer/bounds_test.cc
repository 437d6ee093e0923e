// What the steps of a tokenizer's file may make of a text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/golden_files.h"
#include "tokenizer/tokenizer.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::StartsWith;
using testing::ThrowsMessage;

TEST(TokenizerBounds, BoundsWhatStepsMakeOfAText) {
  json file = read_golden("llama2.json");
  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(4096, 'b')}};
  const Tokenizer tokenizer = Tokenizer::from_json(file.dump());
  EXPECT_THAT([&] { tokenizer.encode(std::string(10'000, 'a')); },
              ThrowsMessage<Error>("normalizer: expected at most 705536 bytes for this text, got more"));
}

// Each of these steps is within the bound; together they would need terabytes.
TEST(TokenizerBounds, BoundsWhatAllStepsTogetherMakeOfAText) {
  const json grow = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(32, 'a')}};
  const json sequence = json::array({grow, grow, grow, grow, grow, grow, grow, grow});
  {
    json file = read_golden("llama2.json");
    file["normalizer"] = {{"type", "Sequence"}, {"normalizers", sequence}};
    EXPECT_THAT([&] { Tokenizer::from_json(file.dump()).encode("a"); },
                ThrowsMessage<Error>("normalizer: expected at most 65600 bytes for this text, got more"));
  }
  {
    json file = read_golden("llama2.json"), prepends = json::array();
    for (int i = 0; i < 17; ++i) prepends.push_back({{"type", "Prepend"}, {"prepend", std::string(4096, 'b')}});
    file["normalizer"] = {{"type", "Sequence"}, {"normalizers", prepends}};
    EXPECT_THAT([&] { Tokenizer::from_json(file.dump()).encode("a"); },
                ThrowsMessage<Error>("normalizer: expected at most 65600 bytes for this text, got more"));
  }
  {
    json file = read_golden("llama2.json"), steps = json::array();
    for (const char* symbol : {"b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r"}) {
      steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", "."}}}, {"behavior", "Isolated"}});
      steps.push_back({{"type", "Metaspace"}, {"replacement", symbol}, {"split", false}});
    }
    file["normalizer"] = nullptr;
    file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
    EXPECT_THAT([&] { Tokenizer::from_json(file.dump()).encode("a"); },
                ThrowsMessage<Error>("pre_tokenizer: expected at most 65600 bytes for this text, got more"));
  }
  {
    json file = read_golden("llama2.json");
    file["decoder"] = {{"type", "Sequence"}, {"decoders", sequence}};
    EXPECT_THAT([&] { Tokenizer::from_json(file.dump()); },
                ThrowsMessage<Error>(StartsWith("decoder: expected at most ")));
  }
}

}  // namespace
}  // namespace foe
