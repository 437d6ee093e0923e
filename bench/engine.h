// Measures steps of an engine without the scheduler and sampling, so that other engines can be measured in the same way
// (bench/peers). A step computes the logits of each sequence's last token.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace foe {

struct StepsOptions {
  std::vector<int> prefill{128, 512, 2048};  // points of prefill: tokens of a prompt that runs alone
  std::vector<int> decode{1, 4, 8, 16, 32};  // points of decode: sequences with one token each
  int prompt = 128;                          // positions that decoding sequences have before their first step
  int chunk = 512;                           // the most tokens of a prompt in one step
  double seconds = 2;                        // a point ends with the repetition that exceeds this time
  int most = 64;                             // the most repetitions, at least one
};

struct StepsPoint {
  bool decode = false;
  int sequences = 1, tokens = 1;  // of each sequence
  std::vector<double> seconds;    // the time of each repetition

  double tokens_per_s(double step_s) const { return sequences * tokens / step_s; }
};

// Return the KV positions and the sequence length that the engine must have.
int kv_tokens(const StepsOptions& options);
int longest_sequence(const StepsOptions& options);

// Runs a prompt of 16 random tokens as the first thing that the engine runs. Called on rank 0, while the others are in
// Engine::follow().
void run_first_token(Engine& engine);

// Measures all points, prefill first, in the same way. Tokens are random. Before each point of decode there is a step
// that does not count. `progress` is called after each point.
void bench_steps(Engine& engine, const StepsOptions& options, const std::function<void(const StepsPoint&)>& progress);

}  // namespace foe
