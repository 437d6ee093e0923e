#include "load/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/text_file.h"
#include "load/draws.h"
#include "weights/config_json.h"

namespace foe {
namespace {

constexpr int kDefaultRandomOutput = 128, kDefaultFileOutput = 256;
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;

// With a space before it, each word is one token in the vocabularies that are in use.
constexpr std::array kWords = {"the",   "of",  "and",  "to",    "in",   "is",    "that", "for",   "it",   "as",  "was",
                               "with",  "be",  "by",   "on",    "not",  "he",    "his",  "but",   "at",   "are", "this",
                               "have",  "had", "from", "one",   "or",   "she",   "all",  "there", "when", "we",  "they",
                               "who",   "her", "been", "some",  "time", "more",  "no",   "if",    "out",  "so",  "said",
                               "what",  "up",  "its",  "about", "into", "than",  "them", "can",   "only", "two", "man",
                               "could", "do",  "new",  "any",   "my",   "first", "like", "our",   "over"};

// --- lengths ---

std::vector<Lengths> random_lengths(const WorkloadOptions& options) {
  Draws draws(options.seed, DrawsFor::kLengths);
  const auto draw = [&](int mean) {
    const double low = std::floor(mean * (1 - options.range_ratio)), high = std::ceil(mean * (1 + options.range_ratio));
    return draws.between(std::max(1, static_cast<int>(low)), std::max(1, static_cast<int>(high)));
  };
  const int input = options.input_len > 0 ? options.input_len : options.default_input_len;
  const int output = options.output_len > 0 ? options.output_len : kDefaultRandomOutput;
  std::vector<Lengths> lengths(options.prompts);
  for (Lengths& l : lengths) l.input = draw(input) + options.prefix_len, l.output = draw(output);
  return lengths;
}

int scaled(int length, double scale) {
  return static_cast<int>(std::clamp(std::round(length * scale), 1.0, 1e9));
}

std::vector<Lengths> trace_lengths(const WorkloadOptions& options) {
  std::vector<Lengths> lengths = parse_trace(read_text_file(options.path, kMaxFileBytes), options.path);
  if (lengths.size() > static_cast<std::size_t>(options.prompts)) lengths.resize(options.prompts);
  for (Lengths& l : lengths) {
    l.input = scaled(l.input, options.scale);
    l.output =
        scaled(options.output_len > 0 ? options.output_len : l.output, options.output_len > 0 ? 1 : options.scale);
    l.at *= options.scale;
  }
  return lengths;
}

// Cuts lengths to the context. Outputs are kept, and prompts are cut to what is left; if nothing would be left, both
// get half.
void fit_context(std::vector<Lengths>& lengths, int context, Workload& workload) {
  if (context == 0) return;
  std::size_t outputs = 0, inputs = 0;
  for (Lengths& l : lengths) {
    if (l.output >= context) l.output = std::max(1, context / 2), ++outputs;
    if (l.input > context - l.output) l.input = std::max(1, context - l.output), ++inputs;
  }
  if (outputs > 0)
    workload.notes.push_back(fmt::format("{} of {} outputs are cut to {} tokens, half of the model's context of {}",
                                         outputs, lengths.size(), std::max(1, context / 2), context));
  if (inputs > 0)
    workload.notes.push_back(
        fmt::format("{} of {} prompts are cut, to fit with their outputs into the model's context of {}", inputs,
                    lengths.size(), context));
}

// --- contents ---

class Writer {
 public:
  Writer(const Vocabulary& vocabulary, std::uint64_t seed, DrawsFor purpose)
      : vocabulary_(vocabulary), draws_(seed, purpose) {}

  // Appends n random tokens.
  void add(WorkloadPrompt& prompt, int n) {
    prompt.tokens += n;
    for (int i = 0; i < n; ++i) {
      if (vocabulary_.size > 0)
        prompt.ids.push_back(draw_id());
      else
        prompt.text +=
            fmt::format("{}{}", prompt.text.empty() ? "" : " ", kWords[draws_.between(0, kWords.size() - 1)]);
    }
  }

 private:
  // Special tokens are left out: they may end a prompt, or look like what a server puts around it.
  bool is_ordinary(std::int32_t id) const {
    const auto& tokenizer = vocabulary_.tokenizer;
    return !tokenizer || (!tokenizer->token_bytes(id).empty() && !tokenizer->is_special(id));
  }

  std::int32_t draw_id() {
    for (int tries = 0; tries < 100; ++tries)
      if (const std::int32_t id = draws_.between(0, vocabulary_.size - 1); is_ordinary(id)) return id;
    fail(
        "--tokenizer: expected a vocabulary with ordinary tokens, got one whose {} ids are nearly all special or empty",
        vocabulary_.size);
  }

  const Vocabulary& vocabulary_;
  Draws draws_;
};

void write_prompts(const std::vector<Lengths>& lengths, const WorkloadOptions& options, const Vocabulary& vocabulary,
                   Workload& workload) {
  WorkloadPrompt prefix;
  if (options.prefix_len > 0) Writer(vocabulary, options.seed, DrawsFor::kPrefix).add(prefix, options.prefix_len);
  Writer writer(vocabulary, options.seed, DrawsFor::kTokens);
  for (const Lengths& l : lengths) {
    WorkloadPrompt prompt;
    if (l.input > prefix.tokens) prompt = prefix;
    writer.add(prompt, l.input - prompt.tokens);
    prompt.output_tokens = l.output;
    if (vocabulary.as_text && !prompt.ids.empty()) {
      prompt.text = vocabulary.tokenizer->decode(prompt.ids);
      prompt.ids.clear();
    }
    workload.prompts.push_back(std::move(prompt));
  }
  if (vocabulary.size == 0)
    workload.notes.push_back("prompts are random words, each about one token; --tokenizer MODEL gives exact ids");
  else if (vocabulary.as_text)
    workload.notes.push_back("prompts are the text of random ids, which need not be as many tokens for the server");
}

std::vector<FilePrompt> read_prompts(const WorkloadOptions& options) {
  const std::string text = read_text_file(options.path, kMaxFileBytes);
  if (options.dataset == "sharegpt") return parse_sharegpt(text, options.path);
  if (options.dataset == "longbench") return parse_longbench(text, options.path);
  return parse_custom(text, options.path);
}

void shuffle(std::vector<FilePrompt>& prompts, std::uint64_t seed) {
  Draws draws(seed, DrawsFor::kOrder);
  for (std::size_t i = prompts.size(); i > 1; --i)
    std::swap(prompts[i - 1], prompts[draws.between(0, static_cast<int>(i) - 1)]);
}

int output_of(const FilePrompt& prompt, const WorkloadOptions& options, const Vocabulary& vocabulary) {
  if (options.output_len > 0) return options.output_len;
  if (prompt.output_tokens > 0) return prompt.output_tokens;
  if (prompt.answer.empty()) return kDefaultFileOutput;
  if (!vocabulary.tokenizer)
    fail("--dataset-name {}: expected --tokenizer, to count the answers' tokens, or --output-len", options.dataset);
  return std::max(1, static_cast<int>(vocabulary.tokenizer->encode(prompt.answer).size()));
}

void take_file_prompts(const WorkloadOptions& options, const Vocabulary& vocabulary, Workload& workload) {
  std::vector<FilePrompt> prompts = read_prompts(options);
  if (options.dataset != "custom" && options.shuffled) shuffle(prompts, options.seed);
  std::size_t too_long = 0;
  for (FilePrompt& from : prompts) {
    if (workload.prompts.size() == static_cast<std::size_t>(options.prompts)) break;
    WorkloadPrompt prompt;
    prompt.output_tokens = output_of(from, options, vocabulary);
    if (vocabulary.tokenizer) {
      prompt.ids = vocabulary.tokenizer->encode(from.prompt);
      prompt.tokens = static_cast<int>(prompt.ids.size());
    }
    if (options.context > 0 && std::int64_t{prompt.tokens} + prompt.output_tokens > options.context) {
      ++too_long;
      continue;
    }
    if (vocabulary.as_text || prompt.ids.empty()) prompt.ids.clear(), prompt.text = std::move(from.prompt);
    workload.prompts.push_back(std::move(prompt));
  }
  if (too_long > 0)
    workload.notes.push_back(
        fmt::format("{} prompts are left out, as with their outputs they are longer than the model's context of {}",
                    too_long, options.context));
}

// What would be ignored is refused.
void refuse_what_does_not_apply(const WorkloadOptions& options) {
  const std::string which = options.preset.empty() ? "--dataset-name " + options.dataset : "--preset " + options.preset;
  const bool random = options.preset.empty() && options.dataset == "random";
  const bool paper = !options.preset.empty(), trace = !paper && options.dataset == "trace";
  const auto refuse = [&](bool given, const char* flag, const char* needs) {
    if (given) fail("{}: expected it with {}, got it with {}", flag, needs, which);
  };
  refuse((random || paper) && !options.path.empty(), "--dataset-path", "a dataset that is a file");
  refuse(!random && options.input_len != 0, "--random-input-len", "random prompts");
  refuse(!random && options.range_ratio != 0, "--random-range-ratio", "random prompts");
  refuse(!random && options.prefix_len != 0, "--random-prefix-len", "random prompts");
  refuse(!paper && !trace && options.scale != 1, "--scale", "--preset paper or --dataset-name trace");
  refuse((random || paper || trace) && !options.shuffled, "--disable-shuffle", "prompts of a file");
}

}  // namespace

Vocabulary load_vocabulary(const std::string& model_dir) {
  Vocabulary vocabulary;
  vocabulary.size = load_model_config(model_dir).vocab_size;
  if (Tokenizer::exists(model_dir)) vocabulary.tokenizer = Tokenizer::of_model(model_dir);
  return vocabulary;
}

Workload make_workload(const WorkloadOptions& options, const Vocabulary& vocabulary) {
  Workload workload;
  const bool has_lengths = !options.preset.empty() || options.dataset == "random" || options.dataset == "trace";
  refuse_what_does_not_apply(options);
  if (has_lengths && vocabulary.as_text && vocabulary.size > 0 && !vocabulary.tokenizer)
    fail("--tokenizer: expected a folder with a tokenizer, as chats are sent as text, got one without");
  if (options.preset.empty() && options.dataset != "random" && options.path.empty())
    fail("--dataset-name {}: expected --dataset-path with the dataset's file, got none", options.dataset);
  if (has_lengths) {
    std::vector<Lengths> lengths = !options.preset.empty() ? paper_lengths(options.prompts, options.scale, options.seed)
                                   : options.dataset == "random" ? random_lengths(options)
                                                                 : trace_lengths(options);
    if (!options.preset.empty() && options.output_len > 0)
      for (Lengths& l : lengths) l.output = options.output_len;
    fit_context(lengths, options.context, workload);
    write_prompts(lengths, options, vocabulary, workload);
    if (options.preset.empty() && options.dataset == "trace")
      for (const Lengths& l : lengths) workload.times.push_back(l.at);
  } else {
    take_file_prompts(options, vocabulary, workload);
  }
  if (workload.prompts.empty())
    fail("{}: expected prompts that fit into the model's context of {}, got none", options.path, options.context);
  if (workload.prompts.size() < static_cast<std::size_t>(options.prompts))
    workload.notes.push_back(
        fmt::format("only {} prompts, as {} has no more that fit", workload.prompts.size(), options.path));
  return workload;
}

// The paper names LongBench's NarrativeQA, HotpotQA, TriviaQA and PassageCount, of which we assume equal numbers, and
// its slides a mean of about 9,000 tokens. LongBench (arXiv 2308.14508; task.md in its repository) has their mean
// lengths in words: 18,409, 9,151, 8,209 and 11,141. We keep these means' ratios and the paper's overall mean.
// LongBench publishes no percentiles: log-normal spreads are our assumption, wide for NarrativeQA's books and scripts
// and TriviaQA's articles, narrow for HotpotQA and PassageCount, which are put together to a length. The paper's models
// have 32,768 positions.
std::vector<Lengths> paper_lengths(int n, double scale, std::uint64_t seed) {
  struct Task {
    double mean_words, sigma;
  };
  constexpr std::array<Task, 4> kTasks{{{18409, 0.5}, {9151, 0.3}, {8209, 0.5}, {11141, 0.4}}};
  constexpr double kMeanWords = (18409 + 9151 + 8209 + 11141) / 4.0, kMeanTokens = 9000;
  constexpr int kOutput = 256, kMaxInput = 32768 - kOutput;
  Draws draws(seed, DrawsFor::kLengths);
  std::vector<Lengths> lengths(n);
  for (Lengths& l : lengths) {
    const Task& task = kTasks[draws.between(0, 3)];
    const double mean = task.mean_words * kMeanTokens / kMeanWords;
    // The mean of a log-normal distribution is exp(mu + sigma^2 / 2).
    const double tokens = std::exp(std::log(mean) - task.sigma * task.sigma / 2 + task.sigma * draws.normal());
    l = {.input = scaled(std::min(static_cast<int>(tokens), kMaxInput), scale), .output = kOutput};
  }
  return lengths;
}

}  // namespace foe
