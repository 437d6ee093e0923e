#include "weights/model_path.h"

#include <cstdlib>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "gguf_bytes.h"
#include "temp_folder.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

class ModelPath : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(folder_ / name).parent_path());
    folder_.write(name, text);
  }
  std::string in(const std::string& name) const { return folder_ / name; }
  void expect_refused(const std::string& given, const std::string& message) {
    EXPECT_THAT([&] { find_model(given); }, ThrowsMessage<Error>(HasSubstr(message))) << given;
  }

  TempFolder folder_;
};

TEST_F(ModelPath, FoldersAndFilesAreThemselves) {
  write("m/config.json", "{}");
  write("m/model.safetensors", "x");
  write("a.gguf", GgufBytes().file());
  write("blob", GgufBytes().file());  // whatever its name
  EXPECT_EQ(find_model(in("m")), in("m"));
  EXPECT_EQ(find_model(in("m/config.json")), in("m"));
  EXPECT_EQ(find_model(in("m/model.safetensors")), in("m"));
  EXPECT_EQ(find_model(in("a.gguf")), in("a.gguf"));
  EXPECT_EQ(find_model(in("blob")), in("blob"));
  EXPECT_EQ(find_model(in("none")), in("none"));  // whoever opens it says so
}

TEST_F(ModelPath, TheOnlyGgufOfAFolder) {
  write("m/a-00001-of-00002.gguf", GgufBytes().file());
  write("m/a-00002-of-00002.gguf", GgufBytes().file());
  write("m/mmproj-a.gguf", GgufBytes().file());
  EXPECT_EQ(find_model(in("m")), in("m/a-00001-of-00002.gguf"));
  write("m/b.gguf", GgufBytes().file());
  expect_refused(in("m"), "expected one GGUF model, got 2: give one of them, such as " + in("m/a-00001-of-00002.gguf"));
}

TEST_F(ModelPath, SnapshotsOfTheCache) {
  write("models--org--name/snapshots/abc/config.json", "{}");
  const std::string snapshot = in("models--org--name/snapshots/abc");
  EXPECT_EQ(find_model(in("models--org--name")), snapshot);
  write("models--org--name/snapshots/def/config.json", "{}");
  EXPECT_EQ(find_model(in("models--org--name")), in("models--org--name"));  // which of the two?
  write("models--org--name/refs/main", "abc");
  EXPECT_EQ(find_model(in("models--org--name")), snapshot);
  setenv("HF_HUB_CACHE", folder_.path().c_str(), 1);
  EXPECT_EQ(find_model("org/name"), snapshot);
  expect_refused("org/other", "download it with 'hf download org/other'");
  write("models--org--name/refs/main", "../../elsewhere");
  EXPECT_EQ(find_model(in("models--org--name")), in("models--org--name"));
  unsetenv("HF_HUB_CACHE");
}

TEST_F(ModelPath, SaysWhatToDoWithOtherThings) {
  write("lora/adapter_config.json", "{}");
  expect_refused(in("lora"), "expected a model, got an adapter (LoRA) to one: merge it");
  write("lfs/config.json", "{}");
  write("lfs/model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
  expect_refused(in("lfs"), "run 'git lfs pull'");
  write("lfs.gguf", "version https://git-lfs.github.com/spec/v1\n");
  expect_refused(in("lfs.gguf"), "run 'git lfs pull'");
  write("vision/config.json", R"({"text_config": {}, "vision_config": {}})");
  expect_refused(in("vision"), "expected a model of text, got one of images and text");
  write("torch/config.json", "{}");
  write("torch/pytorch_model.bin", "x");
  expect_refused(in("torch"), "got PyTorch's own format");
  expect_refused(in("torch/pytorch_model.bin"), "got PyTorch's own format");
  write("torch/model.safetensors", "x");
  EXPECT_EQ(find_model(in("torch")), in("torch"));
  write("alone/model.safetensors", "x");
  expect_refused(in("alone/model.safetensors"), "weights without a config.json beside them");
  write("text.txt", "x");
  expect_refused(in("text.txt"), "expected a model folder or a GGUF file, got another file");
}

}  // namespace
}  // namespace foe
