#include "workload_flags.h"

#include <fmt/core.h>

#include "common.h"

namespace foe {

void add_workload_flags(Command command, WorkloadOptions& options) {
  constexpr int kMaxTokens = 1 << 24;
  command
      .option("--dataset-name", options.dataset,
              "where prompts come from: random, or a file (--dataset-path) in the format of sharegpt, custom (JSONL), "
              "longbench or trace")
      .one_of({"random", "sharegpt", "custom", "longbench", "trace"})
      .show_default();
  command.option("--dataset-path", options.path, "file of the dataset, which all but random need");
  command
      .option("--preset", options.preset,
              "paper: the load of the FoE paper, with prompts as long as those of four LongBench tasks (9,000 tokens on"
              " average) and 256 output tokens, instead of --dataset-name")
      .one_of({"paper"});
  command
      .option("--scale", options.scale,
              "factor on prompt lengths and gaps of --preset paper, and on all lengths and times of a trace")
      .number_in(1e-6, 1e6)
      .show_default();
  command.option("--num-prompts", options.prompts, "most requests to send").range(1, 10'000'000).show_default();
  command
      .option("--random-input-len,--input-len", options.input_len,
              fmt::format("tokens of a random prompt, not counting --random-prefix-len; default: {}",
                          options.default_input_len))
      .range(1, kMaxTokens);
  command
      .option("--random-output-len,--output-len", options.output_len,
              "tokens of an answer; default: what the file says, or else 256; for random prompts 128")
      .range(1, kMaxTokens);
  command
      .option("--random-range-ratio", options.range_ratio,
              "R: random lengths are uniform between 1 - R and 1 + R times the input and output lengths above")
      .number_in(0, 1)
      .show_default();
  command
      .option("--random-prefix-len", options.prefix_len,
              "tokens at the start of random prompts that are the same in all of them")
      .range(0, kMaxTokens)
      .show_default();
  command
      .option("--seed", options.seed,
              "seed of lengths, contents and sending times: the same seed gives the same requests")
      .show_default();
}

void print_notes(const Workload& workload) {
  for (const std::string& note : workload.notes) fmt::print(stderr, "foe: {}\n", note);
}

}  // namespace foe
