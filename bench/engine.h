// Steps of an engine by themselves, without scheduler and sampling, so that other engines can be driven alike
// (bench/peers): a step computes the logits of each sequence's last token.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace foe {

struct StepsOptions {
  std::vector<int> prefill{128, 512, 2048};  // tokens of a prompt that runs alone
  std::vector<int> decode{1, 4, 8, 16, 32};  // sequences that bring one token each
  int prompt = 128;                          // positions that these have behind them in their first step
  int chunk = 512;                           // most tokens of a prompt in one step
  double seconds = 2;                        // of a point: it ends with the repetition that exceeds them
  int most = 64;                             // repetitions, at least one
};

struct StepsPoint {
  bool decode = false;
  int sequences = 1, tokens = 1;  // of each sequence
  std::vector<double> seconds;    // of each repetition

  double tokens_per_s(double step_s) const { return sequences * tokens / step_s; }
};

// What the engine must have.
int kv_tokens(const StepsOptions& options);
int longest_sequence(const StepsOptions& options);

// Rank 0, while the others follow: the first thing that the engine runs, a prompt of 16 random tokens.
void run_first_token(Engine& engine);

// The same: all points, prefill first. Tokens are random. Before a point of decoding there is a step that does not
// count.
void bench_steps(Engine& engine, const StepsOptions& options, const std::function<void(const StepsPoint&)>& progress);

}  // namespace foe
