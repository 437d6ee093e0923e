// What a benchmark asks of a model, and when. Everything follows from the options and the seed, before the run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "load/workload_files.h"
#include "tokenizer/tokenizer.h"

namespace foe {

// A prompt is ids, or text where these are empty.
struct Prompt {
  std::vector<std::int32_t> ids;
  std::string text = "";
  int tokens = 0;  // of the prompt; 0: not known, as it is text and there is no tokenizer
  int output_tokens = 0;
};

struct Workload {
  std::vector<Prompt> prompts;
  std::vector<double> times;  // in seconds from the start, if the workload says when: ascending, one for each prompt
  std::vector<std::string> notes;  // what differs from what was asked for
};

struct WorkloadOptions {
  std::string dataset = "random";  // random, sharegpt, custom, longbench, trace
  std::string path = "";           // of all datasets but random
  std::string preset = "";         // paper, or none
  int prompts = 1000;              // at most
  std::uint64_t seed = 0;
  int input_len = 1024;    // random: without the prefix
  int output_len = 0;      // 0: what the dataset says, or else its default
  double range_ratio = 0;  // random: lengths are uniform in [1 - r, 1 + r] times those above
  int prefix_len = 0;      // random: so many tokens are the same in all prompts
  double scale = 1;        // trace and paper: of prompts' lengths and times; trace: also of outputs
  int context = 0;         // positions that the model has; 0: not known
};

// How tokens are written. With a model folder, as ids of its vocabulary; without, as words, each about a token.
struct Vocabulary {
  std::optional<Tokenizer> tokenizer;
  int size = 0;          // of the model: ids are below; 0: words
  bool as_text = false;  // even if there are ids, as chats need
};
Vocabulary load_vocabulary(const std::string& model_dir);

// Throws Error for options or files that do not make a workload.
Workload make_workload(const WorkloadOptions& options, const Vocabulary& vocabulary);

// When n requests are sent, in seconds: the first at 0, then gaps with mean 1 / rate, gamma distributed with
// `burstiness` as their shape (1: a Poisson process; the larger, the more even). All at 0 for an infinite rate.
std::vector<double> arrival_times(std::size_t n, double rate, double burstiness, std::uint64_t seed);

// Lengths of the paper's prompts (arXiv 2605.06206, section 4), and its 256 output tokens.
std::vector<Lengths> paper_lengths(int n, double scale, std::uint64_t seed);

}  // namespace foe
