#include "workload_flags.h"

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "common.h"

namespace foe {

void add_workload_flags(CLI::App& command, WorkloadOptions& options) {
  constexpr int kMaxTokens = 1 << 24;
  command.add_option("--dataset-name", options.dataset, "random, sharegpt, custom (JSONL), longbench or trace")
      ->check(CLI::IsMember({"random", "sharegpt", "custom", "longbench", "trace"}))
      ->capture_default_str();
  command.add_option("--dataset-path", options.path, "the file, of all datasets but random");
  command
      .add_option("--preset", options.preset,
                  "paper: prompts as long as LongBench's four tasks, 9,000 tokens on average times --scale, 256 output"
                  " tokens, --gap seconds between requests times --scale")
      ->check(CLI::IsMember({"paper"}));
  command.add_option("--scale", options.scale, "factor on lengths and times of --preset paper and of traces")
      ->check(number_in(1e-6, 1e6))
      ->capture_default_str();
  command.add_option("--num-prompts", options.prompts, "most requests")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  command
      .add_option("--random-input-len,--input-len", options.input_len, "tokens of a random prompt, without its prefix")
      ->check(CLI::Range(1, kMaxTokens))
      ->capture_default_str();
  command
      .add_option("--random-output-len,--output-len", options.output_len,
                  "tokens of an answer; default: what the file says, else 256, for random prompts 128")
      ->check(CLI::Range(1, kMaxTokens));
  command
      .add_option("--random-range-ratio", options.range_ratio,
                  "r: lengths are uniform in 1 - r to 1 + r times the above")
      ->check(number_in(0, 1))
      ->capture_default_str();
  command.add_option("--random-prefix-len", options.prefix_len, "tokens at the start that all random prompts share")
      ->check(CLI::Range(0, kMaxTokens))
      ->capture_default_str();
  command
      .add_option("--seed", options.seed, "of lengths, contents and arrivals: the same seed gives the same requests")
      ->capture_default_str();
}

void print_notes(const Workload& workload) {
  for (const std::string& note : workload.notes) fmt::print(stderr, "foe: {}\n", note);
}

}  // namespace foe
