#include "bench/json_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text_file.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

std::string contents(const std::string& path) {
  return read_text_file(path, 1000);
}
std::vector<std::string> names_in(const TempFolder& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    names.push_back(entry.path().filename().string());
  return names;
}

TEST(JsonFile, ChecksWithoutATraceAndWritesLater) {
  const TempFolder folder;
  const JsonFile file("--json", folder / "new.json");
  EXPECT_THAT(names_in(folder), testing::ElementsAre());
  file.write(nlohmann::json({{"a", 1}}));
  EXPECT_EQ(contents(folder / "new.json"), "{\n \"a\": 1\n}\n");
  const JsonFile again("--json", folder / "new.json", JsonStyle::kLine);
  EXPECT_EQ(contents(folder / "new.json"), "{\n \"a\": 1\n}\n");
  again.write(nlohmann::json({{"a", {1, 2}}}));
  EXPECT_EQ(contents(folder / "new.json"), "{\"a\":[1,2]}\n");
  EXPECT_THAT(names_in(folder), testing::ElementsAre("new.json"));
}

TEST(JsonFile, AnEmptyPathIsNone) {
  JsonFile("--json", "").write(3);
}

TEST(JsonFile, SaysAtOnceWhatCannotBeWritten) {
  const TempFolder folder;
  folder.write("file", "x");
  for (const JsonStyle style : {JsonStyle::kIndented, JsonStyle::kLine, JsonStyle::kAddedLine})
    for (const std::string& path : {folder / "none/x.json", folder.path(), folder / "file/x.json"})
      EXPECT_THAT([&] { JsonFile("--json", path, style); },
                  testing::ThrowsMessage<Error>(
                      testing::AllOf(testing::StartsWith("--json: " + path), testing::HasSubstr(", got: "))))
          << path;
  EXPECT_THAT(names_in(folder), testing::ElementsAre("file"));
}

TEST(JsonFile, AddsLines) {
  const TempFolder folder;
  const std::string path = folder / "lines.json";
  const JsonFile file("--json", path, JsonStyle::kAddedLine);
  EXPECT_THAT(names_in(folder), testing::ElementsAre());
  file.write(nlohmann::json({{"a", 1}}));
  file.write(nlohmann::json({{"b", "\xff"}}));
  EXPECT_EQ(contents(path), "{\"a\":1}\n{\"b\":\"\ufffd\"}\n");
  folder.write("lines.json", "{\"vllm\":1}");  // without a line end
  file.write(3);
  EXPECT_EQ(contents(path), "{\"vllm\":1}\n3\n");
}

TEST(JsonFile, DevicesAreNotReplaced) {
  const JsonFile null("--json", "/dev/null");
  null.write(1);
  const JsonFile added("--json", "/dev/null", JsonStyle::kAddedLine);
  added.write(1);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  const JsonFile full("--json", "/dev/full", JsonStyle::kAddedLine);
  EXPECT_THAT([&] { full.write(1); }, testing::ThrowsMessage<Error>(testing::HasSubstr("No space left on device")));
}

}  // namespace
}  // namespace foe
