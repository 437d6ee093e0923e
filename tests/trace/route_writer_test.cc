// A record has each position once and in order, however the steps came, and is never lost to a process that dies.
#include "trace/route_writer.h"

#include <csignal>
#include <cstring>
#include <filesystem>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "record.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr RouteForm kForm{.layers = 2, .entries = 1};
const RouteOrigin kOrigin{"a digest", "tp", 3, {4, 4}};

// A row that names its token.
std::vector<std::int32_t> row_of(std::int32_t expert, const RouteForm& form = kForm) {
  std::vector<std::int32_t> row(form.words());
  for (int layer = 0; layer < form.layers; ++layer) row[form.experts_at(layer)] = expert;
  return row;
}

void add(RouteWriter& writer, std::int64_t step, std::vector<RoutedToken> tokens, std::vector<std::int32_t> experts) {
  std::vector<std::int32_t> rows;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    tokens[t].step = step;
    const std::vector<std::int32_t> row = row_of(experts[t], writer.form());
    rows.insert(rows.end(), row.begin(), row.end());
  }
  writer.add_step(tokens, rows);
}

template <typename T>
std::vector<T> values(const TensorFile& file, const char* name) {
  const std::span<const std::byte> bytes = file.bytes(*file.find(name));
  std::vector<T> all(bytes.size() / sizeof(T));
  std::memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

TEST(RouteWriter, OrdersTokensAndKeepsTheFirstOfEachPosition) {
  const TempFolder folder;
  const std::string path = folder / "r.safetensors";
  RouteRecord record(path);
  {
    RouteWriter writer(path, kForm, kOrigin, 0);
    add(writer, 0, {{9, 0, 50, 0, 1}, {4, 0, 60, 0, 0}}, {0, 1});
    add(writer, 1, {{4, 0, 61, 1, 0}, {4, 0, 60, 0, 0}}, {2, 3});  // position 0 once more
    add(writer, 2, {{9, 0, 51, 1, 1}}, {0});
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  record.finish();
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  const TensorFile file(path);
  EXPECT_THAT(values<std::int64_t>(file, "sequences"), ElementsAre(4, 4, 9, 9));
  EXPECT_THAT(values<std::int32_t>(file, "positions"), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(values<std::int32_t>(file, "tokens"), ElementsAre(60, 61, 50, 51));
  EXPECT_THAT(values<std::int64_t>(file, "steps"), ElementsAre(0, 1, 0, 2));
  EXPECT_THAT(values<std::int32_t>(file, "owners"), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(values<std::int32_t>(file, "experts"), ElementsAre(1, 1, 2, 2, 0, 0, 0, 0));
  EXPECT_EQ(file.metadata().at("complete"), "yes");
  const RouteFile read(file.bytes(), path);
  EXPECT_EQ(read.form(), kForm);
  EXPECT_EQ(read.origin(), kOrigin);
}

TEST(RouteWriter, WritesScoresAndInputs) {
  const TempFolder folder;
  const std::string path = folder / "r";
  const RouteForm form{.layers = 2, .entries = 1, .scores = 4, .inputs = 3};
  RouteRecord record(path);
  std::vector<std::int32_t> row(form.words());
  const auto put = [&](std::size_t at, float value) { std::memcpy(&row[at], &value, sizeof value); };
  for (int i = 0; i < 8; ++i) put(form.scores_at(0) + i, static_cast<float>(i) - 2.5f);
  for (int i = 0; i < 6; ++i) put(form.inputs_at(0) + i, static_cast<float>(i) * 0.1f);
  const RoutedToken token{};
  RouteWriter(path, form, kOrigin, 0).add_step({&token, 1}, row);
  record.finish();
  const TensorFile file(path);
  EXPECT_EQ(RouteFile(file.bytes(), path).form(), form);
  EXPECT_EQ(file.find("scores")->shape, (std::vector<std::int64_t>{1, 2, 4}));
  EXPECT_EQ(file.find("inputs")->shape, (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_THAT(values<float>(file, "scores"), ElementsAre(-2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f, 3.5f, 4.5f));
  EXPECT_THAT(values<float>(file, "inputs"), ElementsAre(0, 0.1f, 0.2f, 3 * 0.1f, 0.4f, 0.5f));
}

// As after the ranks of a server were lost: another process appends, and its steps follow.
TEST(RouteWriter, GoesOnWhereAWriterThatDiedHasEnded) {
  const TempFolder folder;
  const std::string path = folder / "r";
  RouteRecord record(path);
  const pid_t child = fork();
  if (child == 0) {
    RouteWriter writer(path, kForm, kOrigin, 0);
    add(writer, 0, {{1, 0, 7, 0, 0}}, {1});
    add(writer, 1, {{1, 0, 8, 1, 0}}, {2});
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  std::filesystem::resize_file(path + ".partial",
                               std::filesystem::file_size(path + ".partial") - 3);  // a row is cut off
  RouteWriter(path, kForm, {"a digest", "tp", 2, {4, 4}}, 0)                        // on fewer ranks
      .add_step(std::vector<RoutedToken>{{1, 0, 8, 1, 0}}, row_of(2));
  EXPECT_EQ(error_of([&] {
              RouteWriter(path, kForm, {"another", "tp", 2, {4, 4}}, 0);
            }),
            path + ".partial: expected a record of the same form and model, another, got one of a digest");
  EXPECT_THAT(error_of([&] { RouteWriter(path, {.layers = 2, .entries = 2}, kOrigin, 0); }),
              HasSubstr("expected a record of the same form"));
  record.finish();
  const TensorFile file(path);
  EXPECT_THAT(values<std::int32_t>(file, "tokens"), ElementsAre(7, 8));
  EXPECT_THAT(values<std::int64_t>(file, "steps"), ElementsAre(0, 1));
  EXPECT_EQ(RouteFile(file.bytes(), path).origin().ranks, 3);
}

TEST(RouteWriter, EndsAtTheMostBytes) {
  const TempFolder folder;
  const std::string path = folder / "r";
  RouteRecord record(path);
  std::int64_t full = 0;
  {
    RouteWriter writer(path, kForm, kOrigin, 400);
    for (int i = 0; i < 10; ++i) {
      add(writer, i, {{1, 0, i, i, 0}}, {1});
      full = static_cast<std::int64_t>(std::filesystem::file_size(path + ".partial"));
    }
    EXPECT_LE(full, 400);
  }
  // It has ended for who goes on, too, even if a smaller step would fit.
  RouteWriter writer(path, kForm, kOrigin, 1000);
  add(writer, 0, {{1, 0, 9, 9, 0}}, {1});
  EXPECT_EQ(static_cast<std::int64_t>(std::filesystem::file_size(path + ".partial")), full);
  record.finish();
  const TensorFile file(path);
  EXPECT_EQ(file.metadata().at("complete"), "no: the most bytes were reached");
  const auto positions = values<std::int32_t>(file, "positions");
  EXPECT_GT(positions.size(), 1u);
  EXPECT_LT(positions.size(), 10u);
  EXPECT_EQ(RouteFile(file.bytes(), path).route(1).tokens.size(), positions.size());
}

// As by somebody who needs the room: ranks that are started again run, without a record.
TEST(RouteWriter, ARecordThatWasRemovedEndsThereAndNothingElse) {
  const TempFolder folder;
  const std::string path = folder / "r";
  RouteRecord record(path);
  {
    RouteWriter writer(path, kForm, kOrigin, 0);
    add(writer, 0, {{1, 0, 50, 0, 0}}, {1});
    std::filesystem::remove(path + ".partial");
    add(writer, 1, {{1, 0, 51, 1, 0}}, {2});
  }
  {
    testing::internal::CaptureStderr();
    RouteWriter next(path, kForm, kOrigin, 0);
    EXPECT_EQ(testing::internal::GetCapturedStderr(),
              "foe: " + path + ".partial: the record of routes ends here: it was removed\n");
    add(next, 0, {{1, 0, 52, 2, 0}}, {3});
  }
  record.finish();
  const TensorFile file(path);
  EXPECT_THAT(values<std::int32_t>(file, "tokens"), ElementsAre(50, 51));
  EXPECT_EQ(file.metadata().at("complete"), "no: it was removed while it was written");
}

TEST(RouteWriter, ADiskThatRefusesEndsTheRecordAndNothingElse) {
  const TempFolder folder;
  const std::string path = folder / "r";
  RouteRecord record(path);
  const pid_t child = fork();
  if (child == 0) {
    RouteWriter writer(path, kForm, kOrigin, 0);
    add(writer, 0, {{1, 0, 7, 0, 0}}, {1});
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{std::filesystem::file_size(path + ".partial") + 60, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &limit);
    add(writer, 1, {{1, 0, 8, 1, 0}}, {1});
    add(writer, 2, {{1, 0, 9, 2, 0}}, {1});
    add(writer, 3, {{1, 0, 9, 3, 0}}, {1});
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  record.finish();
  const TensorFile file(path);
  EXPECT_THAT(values<std::int32_t>(file, "tokens"), ElementsAre(7, 8));
  EXPECT_EQ(file.metadata().at("complete"), "no: the disk refused more");
}

TEST(RouteRecord, StaysPartialUntilItIsFinished) {
  const TempFolder folder;
  const std::string path = folder / "r";
  {
    RouteRecord record(path);
    RouteWriter writer(path, kForm, kOrigin, 0);
    add(writer, 0, {{1, 0, 7, 0, 0}}, {1});
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(std::filesystem::exists(path + ".partial"));
  RouteRecord next(path);  // replaces what was left
  next.finish();           // nothing was recorded
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
}

// Before anything has run.
TEST(RouteRecord, RefusesWhatIsNoFile) {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "d");
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  for (const std::string& path : {folder / "d", folder / "d/", folder / "pipe", std::string("/dev/null")}) {
    EXPECT_THAT(error_of([&] { RouteRecord{path}; }),
                HasSubstr(path + ": expected a file for the record of routes, or a new name, got something else"));
    EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  }
}

TEST(RouteRecord, HasOneOwner) {
  const TempFolder folder;
  const std::string path = folder / "r";
  const RouteRecord record(path);
  EXPECT_EQ(error_of([&] { RouteRecord{path}; }),
            path + ".partial: expected a file of its own, but another process is recording routes there");
  EXPECT_THAT(error_of([&] { RouteRecord{folder / "none/r"}; }), HasSubstr("expected to create it, got: No such file"));
}

}  // namespace
}  // namespace foe
