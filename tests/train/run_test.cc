// Whole runs: what they learn, what they leave behind, and that interruptions of any kind leave no trace in it.
#include "train/run.h"

#include <chrono>
#include <cmath>
#include <fcntl.h>
#include <signal.h>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <sys/wait.h>

#include "base/error.h"
#include "kernels/each_target.h"
#include "tiny_run.h"
#include "train/trainer.h"
#include "weights/config_json.h"
#include "weights/tensor_file.h"

namespace foe::train {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<nlohmann::json> metrics_of(const TrainConfig& config) {
  std::ifstream in(config.run_dir + "/metrics.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// What a run computed, without how fast.
std::string results_of(const TrainConfig& config) {
  std::string all;
  for (nlohmann::json line : metrics_of(config)) {
    line.erase("tokens_per_s");
    line.erase("peak_share");
    all += line.dump() + "\n";
  }
  return all + read_all(config.run_dir + "/checkpoint.safetensors") +
         read_all(config.run_dir + "/model/model.safetensors");
}

TEST(Run, LearnsTheLanguage) {
  TemporaryDir dir;
  const TrainConfig config = tiny_run(dir);
  ASSERT_TRUE(run_training(config, kQuiet));
  const auto lines = metrics_of(config);
  // 40 steps, 7 validations (not after the last step) and the score of the complete file.
  ASSERT_EQ(lines.size(), 40 + 7 + 1u);
  // Before training every token is about as likely as any other; the language has ln 2 nats per token.
  EXPECT_NEAR(lines.front().at("loss").get<double>(), std::log(61), 0.2);
  EXPECT_LT(lines.back().at("valid_loss").get<double>(), 2.5);
  EXPECT_TRUE(lines.back().at("complete").get<bool>());
  EXPECT_NEAR(lines.back().at("valid_bits_per_byte").get<double>(),
              lines.back().at("valid_loss").get<double>() * 301 / 1204 / std::log(2), 1e-4);
  EXPECT_EQ(lines.back().at("tokens").get<int>(), 40 * 4 * 24);
}

TEST(Run, SavesAModelFolder) {
  TemporaryDir dir;
  TrainConfig config = tiny_run(dir);
  config.steps = 2;
  ASSERT_TRUE(run_training(config, kQuiet));
  const ModelConfig saved = load_model_config(config.run_dir + "/model");
  EXPECT_EQ(saved.expert_groups, 2);
  EXPECT_EQ(saved.residual, Residual::kFederated);
  EXPECT_EQ(saved.group_sync, GroupSync::kSum);
  EXPECT_EQ(saved.eos_token_ids, std::vector<std::int32_t>{0});
  EXPECT_EQ(read_all(config.run_dir + "/model/tokenizer.json"), "{}");

  const TensorFile model(config.run_dir + "/model/model.safetensors");
  const TensorFile checkpoint(config.run_dir + "/checkpoint.safetensors");
  const Layout layout(config.model);
  EXPECT_EQ(model.tensors().size(), layout.tensors.size());
  std::vector<float> flat(layout.size);
  read_floats(checkpoint.tensor(*checkpoint.find("params")), 0, flat);
  for (const TensorSlot& slot : layout.tensors) {
    const Tensor tensor = model.tensor(*model.find(slot.name));
    EXPECT_EQ(tensor.shape, slot.shape);
    std::vector<float> values(slot.size);
    read_floats(tensor, 0, values);
    // The output projection is there stream by stream, each with its columns.
    const std::size_t parts = slot.columns > 0 ? 2 : 1, width = slot.columns > 0 ? slot.columns / 2 : slot.size;
    for (std::size_t i = 0; i < slot.size; ++i) {
      const std::size_t row = i / (parts * width), column = i % (parts * width), part = column / width;
      ASSERT_EQ(values[i], flat[slot.offset + part * slot.size / parts + row * width + column % width])
          << slot.name << "[" << i;
    }
  }
}

TEST(Run, BitsDoNotDependOnThreads) {
  TemporaryDir a, b, c;
  std::vector<std::string> results;
  for (const auto& [dir, threads] : {std::pair{&a, 1}, std::pair{&b, 2}, std::pair{&c, 5}}) {
    const TrainConfig config = tiny_run(*dir);
    RunOptions options = kQuiet;
    options.threads = threads;
    ASSERT_TRUE(run_training(config, options));
    results.push_back(results_of(config));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Run, InBf16BitsDependNeitherOnThreadsNorOnInstructions) {
  std::vector<std::string> results;
  for_each_target_of_codes([&] {
    for (const int threads : {1, 2}) {
      TemporaryDir dir;
      TrainConfig config = tiny_run(dir, with_train_key(kTinyToml, "precision = \"bf16\""));
      config.steps = 3;
      ASSERT_TRUE(run_training(config, {threads, nullptr, false, true}));
      results.push_back(results_of(config));
    }
  });
  for (const std::string& result : results) EXPECT_TRUE(result == results[0]);
}

TEST(Run, StopsWithACheckpointAndResumesToTheSameBits) {
  TemporaryDir whole, parts;
  std::string toml = kTinyToml;
  toml.replace(toml.find("steps = 40"), 10, "steps = 12");
  const TrainConfig expected = tiny_run(whole, toml);
  ASSERT_TRUE(run_training(expected, kQuiet));
  const TrainConfig config = tiny_run(parts, toml);
  const std::atomic<bool> stop{true};  // so each call makes one step
  RunOptions options = kQuiet;
  options.stop = &stop;
  int calls = 1;
  for (; !run_training(config, options); ++calls) ASSERT_LE(calls, config.steps);
  EXPECT_EQ(calls, config.steps);
  EXPECT_EQ(results_of(config), results_of(expected));
}

// Runs the training in a child and kills it with SIGKILL after `delay`. Returns false if it had ended before.
bool killed_after(const TrainConfig& config, std::chrono::microseconds delay) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      run_training(config, {2, nullptr, false, true});
      _exit(0);
    } catch (...) {
      _exit(1);
    }
  }
  std::this_thread::sleep_for(delay);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << "the run failed by itself";
  return WIFSIGNALED(status);
}

TEST(Run, KilledTenTimesEndsWithTheSameBits) {
  TemporaryDir whole;
  const TrainConfig expected = tiny_run(whole);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(run_training(expected, kQuiet));
  const auto duration = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);

  // Where the kills fall depends on the machine and must: any moment has to do. Should a run end before its share of
  // kills, another begins in a fresh directory.
  const std::uint64_t seed = static_cast<std::uint64_t>(getpid());
  int kills = 0;
  for (std::uint64_t round = 0; kills < 10; ++round) {
    TemporaryDir dir;
    const TrainConfig config = tiny_run(dir);
    bool killed = true;
    for (std::uint64_t i = 0; kills < 10 && killed; ++i) {
      const double share = random_unit(seed, 1000 * round + i);
      killed = killed_after(config, std::chrono::microseconds(static_cast<long>(share * 0.7 * duration.count())));
      kills += killed;
    }
    ASSERT_TRUE(run_training(config, kQuiet));
    ASSERT_EQ(results_of(config), results_of(expected)) << "after " << kills << " kills, seed " << seed;
  }
}

TEST(Run, RefusesACheckpointOfAnotherConfiguration) {
  TemporaryDir dir;
  TrainConfig config = tiny_run(dir);
  config.steps = 2;
  ASSERT_TRUE(run_training(config, kQuiet));
  std::string other = kTinyToml;
  other.replace(other.find("seed = 3"), 8, "seed = 4");
  EXPECT_THAT([&] { run_training(tiny_run(dir, other), kQuiet); },
              ThrowsMessage<Error>(HasSubstr("train.seed is 3 in this checkpoint and 4 in the configuration")));
  write_all(dir / "tokens/train.u16", u16_bytes(tiny_text(2000, 61, 9)));
  EXPECT_THAT([&] { run_training(config, kQuiet); },
              ThrowsMessage<Error>(HasSubstr("data.train is 2000 tokens, hash")));
}

// A checkpoint in f32 does not name its precision, so that those from before there was one are like it.
TEST(Run, RefusesACheckpointOfAnotherPrecision) {
  const std::string f32 = with_train_key(kTinyToml, "precision = \"f32\""),
                    bf16 = with_train_key(kTinyToml, "precision = \"bf16\"");
  TemporaryDir in_f32, in_bf16;
  for (const auto& [dir, toml] : {std::pair{&in_f32, std::string(kTinyToml)}, {&in_f32, f32}, {&in_bf16, bf16}}) {
    TrainConfig config = tiny_run(*dir, toml);
    config.steps = 2;
    ASSERT_TRUE(run_training(config, kQuiet));
  }
  EXPECT_THAT(
      [&] { run_training(tiny_run(in_f32, bf16), kQuiet); },
      ThrowsMessage<Error>(HasSubstr("train.precision is f32 in this checkpoint and bf16 in the configuration")));
  EXPECT_THAT(
      [&] { run_training(tiny_run(in_bf16), kQuiet); },
      ThrowsMessage<Error>(HasSubstr("train.precision is bf16 in this checkpoint and f32 in the configuration")));
}

// Whichever bit of its contents a disk has lost.
TEST(Run, RefusesADamagedCheckpoint) {
  TemporaryDir dir;
  TrainConfig config = tiny_run(dir);
  config.steps = 2;
  ASSERT_TRUE(run_training(config, kQuiet));
  const std::string path = config.run_dir + "/checkpoint.safetensors", whole = read_all(path);
  const auto refused = [&](const std::string& bytes, const std::string& message) {
    write_all(path, bytes);
    EXPECT_THAT([&] { run_training(config, kQuiet); },
                ThrowsMessage<Error>(testing::AllOf(HasSubstr(path), HasSubstr(message))));
  };
  {
    const TensorFile file(path);
    for (const char* name : {"params", "first", "second"}) {
      const TensorInfo* info = file.find(name);
      std::string bytes = whole;
      char& byte = bytes[(info->begin + info->end) / 2];
      byte = static_cast<char>(byte ^ 0x10);
      write_all(path + ".new", bytes);
      std::filesystem::rename(path + ".new", path);
      EXPECT_THAT([&] { run_training(config, kQuiet); },
                  ThrowsMessage<Error>(testing::AllOf(HasSubstr(path), HasSubstr("has been damaged"))))
          << name;
    }
  }
  std::string bytes = whole;
  const std::size_t steps = bytes.find("\"steps_done\":\"2\"");
  ASSERT_NE(steps, std::string::npos);
  bytes[steps + 14] = '0';
  refused(bytes, "the file has been damaged since it was written");
  bytes = whole;
  bytes.replace(bytes.find("\"digest\""), 8, "\"dihest\"");
  refused(bytes, "expected the checkpoint of a run, with steps_done and digest");
  bytes = whole;
  bytes.replace(bytes.find("\"format\":\"4\""), 12, "\"format\":\"3\"");
  refused(bytes, "expected a checkpoint of format 4, got format 3: another version of foe began this run");
  write_all(path, whole);
  EXPECT_TRUE(run_training(config, kQuiet));
}

// As if the run had come to its end.
TEST(Run, RefusesMoreStepsThanThereAre) {
  TemporaryDir dir;
  TrainConfig config = tiny_run(dir);
  config.steps = 2;
  ASSERT_TRUE(run_training(config, kQuiet));
  config.steps = 1;  // the identity, which is of the text, agrees
  EXPECT_THAT([&] { run_training(config, kQuiet); },
              ThrowsMessage<Error>(HasSubstr("expected at most the 1 steps of train.steps, got 2 that are done")));
}

TEST(Run, RefusesADirectoryInUse) {
  TemporaryDir dir;
  const TrainConfig config = tiny_run(dir);
  write_all(config.run_dir + "/lock", "");
  const int lock = open((config.run_dir + "/lock").c_str(), O_RDWR);
  ASSERT_EQ(flock(lock, LOCK_EX | LOCK_NB), 0);
  EXPECT_THAT([&] { run_training(config, kQuiet); }, ThrowsMessage<Error>(HasSubstr("another run is using it")));
  close(lock);
  EXPECT_TRUE(run_training(config, kQuiet));
}

// Every token once, whatever the stride; and more context can be had only by overlapping.
TEST(Run, EvaluationScoresEveryTokenOnce) {
  TemporaryDir dir;
  TrainConfig config = tiny_run(dir);
  config.init.embedding =
      0;  // and so all logits are: every token costs the same, and the mean says how many there were
  const TokenData data = load_token_data(config.tokens, config.sequence_length);
  ThreadPool pool(2);
  const auto comm = make_self_comm();
  Trainer trainer(config, data, pool, *comm);
  for (const int stride : {1, 5, 12, 24})
    for (const std::size_t limit : {1u, 23u, 24u, 25u, 300u, 301u, 10000u})
      EXPECT_NEAR(trainer.evaluate(data.valid, limit, stride), std::log(61), 1e-6) << stride << ", " << limit;
}

}  // namespace
}  // namespace foe::train
