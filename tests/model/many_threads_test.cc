// The forward pass on as many threads as large machines have: the same bits, and as many loops, each of which all
// threads must finish before the next begins, as on two.
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/sanitized.h"
#include "comm/ranks.h"
#include "core/configs.h"
#include "random_model.h"
#include "runner.h"

namespace foe {
namespace {

std::vector<int> numbers_of_threads() {
  if (kSanitized) return {16};
  return {16, 64, 128};
}

struct Pass {
  std::vector<float> logits;
  std::size_t loops = 0;
};

// Runs a prompt, and then one more token of each sequence.
std::vector<Pass> run_passes(const RandomModel& folder, Communicator& comm, int threads, int sequences) {
  Runner runner(folder.path(), default_plan(folder.config()), comm, threads);
  std::vector<std::int32_t> tokens(40);
  std::iota(tokens.begin(), tokens.end(), 1);
  std::vector<Pass> passes;
  for (const auto& [from, count] : {std::pair<int, int>{0, 39}, {39, 1}}) {
    Batch batch;
    for (int s = 0; s < sequences; ++s)
      batch.add_sequence({tokens.data() + from, static_cast<std::size_t>(count)}, from, blocks_of(s, 40),
                         Batch::Sample::kLast);
    const std::size_t before = runner.pool.loops();
    passes.push_back({runner.run(batch), 0});
    passes.back().loops = runner.pool.loops() - before;
  }
  return passes;
}

TEST(ManyThreads, GiveTheBitsOfOneInAsManyLoopsAsTwo) {
  for (const ModelConfig& config : {small_config(), small_federated(2)}) {
    const RandomModel folder(config);
    run_ranks(1, kTimeout, [&](Communicator& comm) {
      for (const int sequences : {1, 8}) {
        const std::vector<Pass> one = run_passes(folder, comm, 1, sequences),
                                two = run_passes(folder, comm, 2, sequences);
        for (const int threads : numbers_of_threads()) {
          const std::vector<Pass> many = run_passes(folder, comm, threads, sequences);
          for (std::size_t i = 0; i < many.size(); ++i) {
            EXPECT_EQ(many[i].logits, one[i].logits)
                << threads << " threads, " << sequences << " sequences, pass " << i;
            EXPECT_EQ(many[i].loops, two[i].loops) << threads << " threads, " << sequences << " sequences, pass " << i;
          }
        }
      }
    });
  }
}

}  // namespace
}  // namespace foe
