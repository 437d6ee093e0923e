#include "bench/random_model.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/configs.h"
#include "tokenizer/tokenizer.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

// Added tokens have the ids behind the vocabulary, where the model's further ids are, too.
TEST(RandomModel, KeepsAddedTokensWhereTheModelHasMoreIdsThanTheTokenizer) {
  const TempFolder folder;
  for (const char* name : {"gpt2", "gemma", "phi3", "t5"}) {
    SCOPED_TRACE(name);
    const std::string source = folder / name, dir = folder / (std::string(name) + "-model");
    std::filesystem::create_directory(source);
    std::filesystem::copy(std::string(FOE_SOURCE_DIR "/tests/golden/tokenizer/") + name + ".json",
                          source + "/tokenizer.json");
    const Tokenizer expected = Tokenizer::of_model(source);
    ModelConfig config = small_config();
    config.vocab_size = expected.vocab_size() + 20;
    write_random_model(dir, config, DType::kF32, 1, source);
    const Tokenizer tokenizer = Tokenizer::of_model(dir);
    EXPECT_EQ(tokenizer.vocab_size(), config.vocab_size);
    for (int id = 0; id < expected.vocab_size(); ++id) EXPECT_EQ(tokenizer.token_bytes(id), expected.token_bytes(id));
    for (int id = expected.vocab_size(); id < config.vocab_size; ++id)
      EXPECT_EQ(tokenizer.token_bytes(id), "<" + std::to_string(id) + ">");
    const std::string text = "The miller\n\ncounted <|endoftext|><s></s><|end|> twice.";
    EXPECT_EQ(tokenizer.encode(text), expected.encode(text));
  }
}

}  // namespace
}  // namespace foe
