#include "workload_flags.h"

#include <fmt/core.h>

#include "common.h"

namespace foe {

void add_workload_flags(Command command, WorkloadOptions& options) {
  constexpr int kMaxTokens = 1 << 24;
  command.option("--dataset-name", options.dataset, "random, sharegpt, custom (JSONL), longbench or trace")
      .one_of({"random", "sharegpt", "custom", "longbench", "trace"})
      .show_default();
  command.option("--dataset-path", options.path, "the file, of all datasets but random");
  command
      .option("--preset", options.preset,
              "paper: prompts as long as LongBench's four tasks, 9,000 tokens on average times --scale, 256 output"
              " tokens, --gap seconds between requests times --scale")
      .one_of({"paper"});
  command.option("--scale", options.scale, "factor on lengths and times of --preset paper and of traces")
      .number_in(1e-6, 1e6)
      .show_default();
  command.option("--num-prompts", options.prompts, "most requests").range(1, 10'000'000).show_default();
  command.option("--random-input-len,--input-len", options.input_len, "tokens of a random prompt, without its prefix")
      .range(1, kMaxTokens)
      .show_default();
  command
      .option("--random-output-len,--output-len", options.output_len,
              "tokens of an answer; default: what the file says, else 256, for random prompts 128")
      .range(1, kMaxTokens);
  command
      .option("--random-range-ratio", options.range_ratio, "r: lengths are uniform in 1 - r to 1 + r times the above")
      .number_in(0, 1)
      .show_default();
  command.option("--random-prefix-len", options.prefix_len, "tokens at the start that all random prompts share")
      .range(0, kMaxTokens)
      .show_default();
  command.option("--seed", options.seed, "of lengths, contents and arrivals: the same seed gives the same requests")
      .show_default();
}

void print_notes(const Workload& workload) {
  for (const std::string& note : workload.notes) fmt::print(stderr, "foe: {}\n", note);
}

}  // namespace foe
