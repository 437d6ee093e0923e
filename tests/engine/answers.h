// Requests for tests of the engine, and all that comes of them.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "model/random_model.h"

namespace foe {

inline Request request(std::int64_t id, int prompt, int max_tokens, float temperature = 0) {
  Request r;
  r.id = id;
  r.prompt = random_tokens(prompt, 70, id);
  r.max_tokens = max_tokens;
  r.sampling = {.temperature = temperature, .seed = static_cast<std::uint64_t>(id)};
  return r;
}

// All that comes of a request: its tokens, and what is reported of them and of the prompt.
struct Answer {
  std::vector<std::int32_t> tokens;
  std::vector<std::vector<float>> logprobs, prompt;

  bool operator==(const Answer&) const = default;
};

inline std::vector<float> numbers(const LogprobEntry& entry) {
  std::vector<float> all{entry.logprob};
  for (const TokenLogprob& top : entry.top) all.insert(all.end(), {static_cast<float>(top.token), top.logprob});
  return all;
}

inline std::map<std::int64_t, Answer> answers(Engine& engine, const std::vector<Request>& requests) {
  std::map<std::int64_t, Answer> all;
  for (const Request& r : requests) engine.submit(r);
  while (!engine.idle())
    for (const TokenEvent& event : engine.step()) {
      Answer& answer = all[event.id];
      EXPECT_TRUE(event.prompt.empty() || answer.tokens.empty());
      answer.tokens.push_back(event.token);
      if (event.logprobs) answer.logprobs.push_back(numbers(*event.logprobs));
      for (const LogprobEntry& entry : event.prompt) answer.prompt.push_back(numbers(entry));
    }
  return all;
}

// A request for every way to sample.
inline std::vector<Request> every_way_to_sample() {
  const SamplingParams ways[] = {
      {},
      {.temperature = 1},
      {.temperature = 1, .top_p = 0.7f},
      {.temperature = 1.5f, .top_k = 5},
      {.temperature = 1, .top_p = 0.9f, .top_k = 66},
      {.temperature = 2, .min_p = 0.5f},
      {.presence_penalty = 1.5f},
      {.frequency_penalty = 0.7f},
      {.repetition_penalty = 1.3f},
      {.temperature = 1, .presence_penalty = -1, .frequency_penalty = 0.5f, .repetition_penalty = 0.9f},
      {.logit_bias = {{3, 2.0f}, {69, 1.5f}, {0, -100.0f}}},
      {.min_tokens = 9},
      {.allowed_tokens = {1, 5, 8, 13, 40, 69}},
      {.temperature = 1, .bad_words = {{3}, {5}, {8}, {11}, {14}, {17}, {20}, {23}, {26}, {29}, {32}, {35, 1}}},
      {.temperature = 1, .min_tokens = 4, .logprobs = 3},
      {.logprobs = 0},
      {.temperature = 1, .top_k = 3, .logprobs = 20, .prompt_logprobs = 0},
      {.prompt_logprobs = 2},
  };
  std::vector<Request> requests;
  for (const SamplingParams& way : ways) {
    const auto id = static_cast<std::int64_t>(requests.size() + 1);
    Request& r = requests.emplace_back(request(id, 3 + 7 * static_cast<int>(id) % 40, 12));
    r.sampling = way;
    r.sampling.seed = id;
    if (way.min_tokens > 0)
      for (int token = 0; token < 70; token += 2) r.stop_ids.push_back(token);
  }
  return requests;
}

}  // namespace foe
