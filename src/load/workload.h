// Workloads: what a benchmark sends to a server, and when. All of it is a function of the options and the seed, and is
// fixed before the run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "load/workload_files.h"
#include "tokenizer/tokenizer.h"

namespace foe {

// A prompt to send: a list of ids or, if that is empty, a text.
struct WorkloadPrompt {
  std::vector<std::int32_t> ids;
  std::string text = "";
  int tokens = 0;  // in the prompt; 0: unknown, because it is text and there is no tokenizer
  int output_tokens = 0;
};

struct Workload {
  std::vector<WorkloadPrompt> prompts;
  std::vector<double> times;       // when to send each prompt, in ascending seconds; empty if the dataset does not say
  std::vector<std::string> notes;  // how the workload differs from what was asked for
};

struct WorkloadOptions {
  std::string dataset = "random";  // random, sharegpt, custom, longbench, trace
  std::string path = "";           // the file of all datasets but random
  std::string preset = "";         // "paper", or empty
  int prompts = 1000;              // the most prompts
  std::uint64_t seed = 0;
  bool shuffled = true;  // sharegpt, longbench: whether prompts are in an order that the seed decides
  int input_len = 0;     // random: tokens of a prompt without the prefix; 0: default_input_len
  int default_input_len = 1024;
  int output_len = 0;      // 0: as the dataset says, or its default
  double range_ratio = 0;  // random: lengths are uniform in [1 - r, 1 + r] times the two above
  int prefix_len = 0;      // random: tokens at the beginning that all prompts share
  double scale = 1;        // trace and paper: multiplies prompt lengths and times; trace: also output lengths
  int context = 0;         // the model's context length; 0: unknown
};

// How tokens are written: with a model folder as ids of its vocabulary, otherwise as words, each of which is about one
// token.
struct Vocabulary {
  std::optional<Tokenizer> tokenizer;
  int size = 0;          // the model's vocabulary size; 0: write words
  bool as_text = false;  // write ids as text, which chats need
};
Vocabulary load_vocabulary(const std::string& model_dir);

// Makes a workload. Throws Error if the options or the files do not make one.
Workload make_workload(const WorkloadOptions& options, const Vocabulary& vocabulary);

// Returns lengths of prompts as in the paper (arXiv 2605.06206, section 4), each with its 256 output tokens.
std::vector<Lengths> paper_lengths(int n, double scale, std::uint64_t seed);

}  // namespace foe
