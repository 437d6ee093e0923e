// What the commands that run a model share: their flags, and one engine per rank.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "engine/engine.h"
#include "engine/processors.h"
#include "flags.h"
#include "tokenizer/tokenizer.h"

namespace foe {

// PlanChoice
struct PlanFlags {
  std::string name;  // empty: default_plan() of the model
  std::vector<int> stage_layers;
  int stages = 0;
  std::string ep_attention = "whole";
};

struct ModelFlags {
  std::string model;
  PlanFlags plan;
  std::string dispatch = "rank";
  std::string wire = "f32";
  bool overlap = false;
  std::string dtype, quantize;  // empty: the formats of the file
  std::string kv_dtype = "bf16", attention = "f32";
  int threads = 0;  // per rank; 0: this machine's cores divided by the ranks on it
  bool pin = false;
  int chunk = 512;
  double timeout_s = 60;         // how long a rank waits for another before it fails
  double start_timeout_s = 600;  // the same until all ranks have loaded the model
};

// Adds MODEL; `more` is added to its help.
Option add_model(Command command, std::string& model, const std::string& more = "");
// What the command does when it is chosen: then `model`, which must live as long as the command, is the folder or file
// that MODEL means (weights/model_path.h).
void runs_on_model(Command command, std::string& model, std::function<void()> run);
void add_model_flags(Command command, ModelFlags& flags);
// Adds only --wire and --overlap.
void add_wire_flags(Command command, ModelFlags& flags);
// Add --threads of each rank, and --dtype of a model with random weights.
void add_rank_threads(Command command, int& threads);
void add_random_dtype(Command command, std::string& dtype);
// Add only --kv-dtype, --attention or --quantize.
void add_kv_dtype(Command command, std::string& kv_dtype);
void add_attention(Command command, std::string& attention);
Option add_quantize(Command command, std::string& quantize);
// Adds --kv-tokens; 0 stands for default_kv_tokens().
void add_kv_tokens(Command command, int& kv_tokens);
// Adds --draft-tokens (EngineOptions::max_draft).
Option add_draft_tokens(Command command, int& tokens);
// Adds --temperature, --top-p, --top-k, --min-p and --seed.
void add_sampling_flags(Command command, SamplingParams& sampling);

// Adds --plan, --stages, --stage-layers and --ep-attention.
void add_plan(Command command, PlanFlags& flags);

PlanChoice plan_of(const PlanFlags& flags, const ModelConfig& config);
ExchangeOptions exchange_of(const ModelFlags& flags);
// Returns what --dtype and --quantize ask for; --quantize overrides --dtype. Throws Error for an unknown format.
FormatChoice format_choice(const std::string& dtype, const std::string& quantize);
// Returns the type that --attention asks for. Throws Error if it cannot be used with --kv-dtype.
AttentionType attention_of(const ModelFlags& flags);
// Returns the number of threads of a rank that has this share of its machine.
int threads_of(const ModelFlags& flags, const LocalShare& share);
// Throws Error if a launcher has started several processes of a command that must be one.
void require_one_process(const char* command);

// Loads this rank's share of the model, and runs `lead` on rank 0 while the other ranks are in Engine::follow(). The
// options `threads`, `pinned`, `max_batch_tokens`, `kv_type`, `attention` and `exchange` are taken from the flags. On a
// machine with several NUMA nodes, the calling thread is bound to those of this rank. Throws Error if the model cannot
// be loaded, or a rank has died.
void run_on_all_ranks(const ModelFlags& flags, EngineOptions options, const std::function<void(Engine&)>& lead);

// Prints on standard error what a user should know of a model: keys and tensors that are not read, and the tokenizer's
// ids that are not as its files say.
void print_notes(const std::string& model, const Tokenizer& tokenizer, const ModelConfig& config);
// Prints a text on standard output and flushes it. Throws Error if it cannot be written.
void print_now(const std::string& text);

// Reads ids: "1,2,3", or "@FILE" with the same in a file. Throws Error naming the flag and what is not an id.
std::vector<std::int32_t> parse_tokens(const std::string& flag, const std::string& text);

}  // namespace foe
