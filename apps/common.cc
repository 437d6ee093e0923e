#include "common.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/inherited.h"
#include "base/strict_json.h"
#include "engine/agreement.h"
#include "engine/processors.h"
#include "kernels/cpu.h"
#include "weights/config_json.h"
#include "weights/format_notes.h"
#include "weights/model_path.h"

namespace foe {

void add_wire_flags(Command command, ModelFlags& flags) {
  command
      .option("--wire", flags.wire,
              "number format of what ranks send each other: f32 is exact; bf16 and int8 round, and save time on a slow"
              " network")
      .one_of({"f32", "bf16", "int8"})
      .show_default();
  command.flag("--overlap", flags.overlap,
               "in steps of 128 tokens or more, compute one half of the tokens while the other half's data is sent;"
               " can save time on a slow network");
}

void add_rank_threads(Command command, int& threads) {
  command.option("--threads", threads, "threads of each rank; default: the machine's cores divided by the ranks on it")
      .range(1, 1024);
}

void add_random_dtype(Command command, std::string& dtype) {
  command.option("--dtype", dtype, "format of the weights")
      .one_of({"f32", "bf16", "bf16xbf16", "int8", "int4"})
      .show_default();
}

void add_kv_dtype(Command command, std::string& kv_dtype) {
  command
      .option("--kv-dtype", kv_dtype,
              "number format of the KV cache: f32, bf16, or int8 with a scale for each position and KV head")
      .one_of({"f32", "bf16", "int8"})
      .show_default();
}

void add_attention(Command command, std::string& attention) {
  command
      .option("--attention", attention,
              "number format in which attention multiplies: f32, or bf16, which also rounds queries and softmax"
              " weights, needs --kv-dtype bf16, and is several times as fast on long prompts if the processor has AMX")
      .one_of({"f32", "bf16"})
      .show_default();
}

Option add_quantize(Command command, std::string& quantize) {
  return command
      .option("--quantize", quantize,
              "quantise the weights to int8 or int4, or each part for itself, as in"
              " experts=int4,attention=int8,head=int8; parts that are not named stay as in the file")
      .parsed_by([](const std::string& text) { parse_format_choice("format", text); });
}

Option add_model(Command command, std::string& model, const std::string& more) {
  return command
      .option(
          "MODEL", model,
          "model folder (config.json, *.safetensors and, for text, a tokenizer), a GGUF file, or ORG/NAME of what is"
          " in Hugging Face's cache" +
              more)
      .required();
}

void runs_on_model(Command command, std::string& model, std::function<void()> run) {
  command.runs([&model, run = std::move(run)] {
    model = find_model(model);
    run();
  });
}

void add_plan(Command command, PlanFlags& flags) {
  command
      .option("--plan", flags.name,
              "how ranks share the model: foe (federation, for federated models), tp (tensor parallelism) or ep (expert"
              " parallelism, both for all others), or pp (pipeline parallelism: each rank has some of the layers);"
              " default: foe for federated models, tp for others")
      .one_of({"foe", "tp", "ep", "pp"});
  command
      .option(
          "--stages", flags.stages,
          "share the layers among so many sets of ranks, one after the other; the ranks of a set share its layers as"
          " --plan says; default: 1, in plan pp one for each rank")
      .range(1, 1 << 20);
  command
      .option("--stage-layers", flags.stage_layers,
              "how many layers each stage has, in order, as in 9,7; default: as many as make the stages' weights even,"
              " those of the token head with the last one's")
      .list()
      .range(1, 1 << 20);
  command
      .option(
          "--ep-attention", flags.ep_attention,
          "in plan ep, and where ranks share a group: whole gives each rank sequences of its own; split shares every"
          " sequence's tokens, so that all ranks work on one long prompt, and each keeps the KV cache of all")
      .one_of({"whole", "split"})
      .show_default();
}

void add_model_flags(Command command, ModelFlags& flags) {
  add_model(command, flags.model);
  add_plan(command, flags.plan);
  command
      .option(
          "--dispatch", flags.dispatch,
          "where ranks share a group's experts, as in plan ep: send a token's row once to each rank that has some of"
          " its experts, or once for each expert")
      .one_of({"rank", "expert"})
      .show_default();
  add_wire_flags(command, flags);
  command
      .option("--dtype", flags.dtype,
              "format of the weights in memory: f32, bf16, or bf16xbf16, which also rounds activations to bf16 and is"
              " faster if the processor has AMX; default: as in the file")
      .one_of({"f32", "bf16", "bf16xbf16"});
  add_quantize(command, flags.quantize);
  add_kv_dtype(command, flags.kv_dtype);
  add_attention(command, flags.attention);
  add_rank_threads(command, flags.threads);
  command.flag("--pin", flags.pin, "bind each thread to one processor, which no other thread of foe uses");
  command.option("--chunk", flags.chunk, "most tokens in one step; a longer prompt is computed in several steps")
      .range(1, 1 << 20)
      .show_default();
  command
      .option("--timeout", flags.timeout_s,
              "seconds that a rank waits for another one before it fails and ends the job")
      .number_in(0.1, 86400)
      .show_default();
  command
      .option("--start-timeout", flags.start_timeout_s,
              "seconds that ranks wait for each other until all have loaded the model")
      .number_in(1, 86400)
      .show_default();
}

void add_kv_tokens(Command command, int& kv_tokens) {
  command
      .option("--kv-tokens", kv_tokens,
              "tokens that the KV cache has room for, of all sequences together; default: --max-sequences contexts of"
              " the model, but at most 4 GiB (with stages about that on each), and at least one context")
      .range(16, 1 << 30);
}

Option add_draft_tokens(Command command, int& tokens) {
  return command
      .option("--draft-tokens", tokens,
              "most tokens to guess in a step, from what the text repeats; those that the model chooses too come in one"
              " step, so that copies and repetitions come sooner, in the same words; 0: none")
      .range(0, 64)
      .show_default();
}

void add_sampling_flags(Command command, SamplingParams& sampling) {
  command.option("--temperature", sampling.temperature, "sampling temperature; 0: always the most likely token")
      .show_default();
  command
      .option("--top-p", sampling.top_p,
              "sample from the fewest most likely tokens that together have this probability; 1: from all")
      .show_default();
  command.option("--top-k", sampling.top_k, "sample from the k most likely tokens; 0: from all").show_default();
  command
      .option("--min-p", sampling.min_p,
              "drop tokens whose probability is below this fraction of the most likely token's; 0: none")
      .show_default();
  command.option("--seed", sampling.seed, "seed of the random numbers: the same seed gives the same text")
      .show_default();
}

PlanChoice plan_of(const PlanFlags& flags, const ModelConfig& config) {
  return {flags.name.empty() ? default_plan(config) : parse_plan(flags.name), flags.stage_layers, flags.stages,
          flags.ep_attention == "split"};
}

ExchangeOptions exchange_of(const ModelFlags& flags) {
  return {.dispatch = parse_dispatch(flags.dispatch), .wire = parse_wire(flags.wire), .overlap = flags.overlap};
}

FormatChoice format_choice(const std::string& dtype, const std::string& quantize) {
  FormatChoice choice;
  if (!dtype.empty()) choice = FormatChoice::all(parse_weight_format("--dtype", dtype));
  if (quantize.empty()) return choice;
  const FormatChoice more = parse_format_choice("--quantize", quantize);
  const auto either = [](const auto& a, const auto& b) { return a ? a : b; };
  return {either(more.attention, choice.attention), either(more.experts, choice.experts),
          either(more.head, choice.head)};
}

namespace {

// Binds this thread, and those that it starts, to the NUMA nodes of this rank.
void place_threads(bool pin, const LocalShare& share, EngineOptions& options) {
  const Processors usable = usable_processors();
  if (usable.size() > 1) bind_thread(processors_of(usable, share.rank, share.ranks));
  if (pin) options.pinned = processors_to_pin(usable, share.rank, share.ranks, options.threads);
}

// Returns what every rank must have in common: from its command line, its copy of the model, and its version of foe.
std::vector<Fact> facts_of(const ModelFlags& flags, const ModelConfig& config, const EngineOptions& options) {
  std::vector<Fact> facts = {{"the version of foe", FOE_VERSION},
                             {"the instruction set", instruction_set(), true},
                             {"--plan", to_string(plan_of(flags.plan, config).plan)},
                             {"--stages", std::to_string(flags.plan.stages)},
                             {"--stage-layers", fmt::format("{}", fmt::join(flags.plan.stage_layers, ","))},
                             {"--ep-attention", flags.plan.ep_attention},
                             {"--dispatch", flags.dispatch},
                             {"--wire", flags.wire},
                             {"--overlap", flags.overlap ? "on" : "off"},
                             {"--dtype", flags.dtype.empty() ? "the file's" : flags.dtype},
                             {"--quantize", flags.quantize.empty() ? "the file's" : flags.quantize},
                             {"--kv-dtype", flags.kv_dtype},
                             {"--attention", flags.attention},
                             {"--chunk", std::to_string(flags.chunk)},
                             {"the KV cache's tokens", std::to_string(options.kv_tokens)},
                             {"the most sequences", std::to_string(options.max_sequences)},
                             {"the most rows of logits", std::to_string(options.max_sampled)},
                             {"--draft-tokens", std::to_string(options.max_draft)},
                             {"the record of routes", fmt::format("{} {} {}", options.record.routes,
                                                                  options.record.scores, options.record.inputs)}};
  const nlohmann::json json = nlohmann::json::parse(model_config_json(config));
  for (const auto& [key, value] : json.items()) facts.push_back({"config.json's " + key, excerpt(value)});
  return facts;
}

void agree(Communicator& comm, const std::vector<Fact>& facts) {
  if (const std::string note = require_agreement(comm, facts); !note.empty())
    print_error("foe: " + note + "; this changes no answer");
}

}  // namespace

int threads_of(const ModelFlags& flags, const LocalShare& share) {
  return flags.threads > 0 ? flags.threads : share.threads;
}

void require_one_process(const char* command) {
  if (const int processes = processes_of_launcher(); processes > 1)
    fail("foe {0} is one process, but a launcher has started {1}: run foe {0} by itself{2}", command, processes,
         std::string_view(command) == "serve" ? fmt::format("; it starts its ranks, as with --ranks {}", processes)
                                              : "");
}

AttentionType attention_of(const ModelFlags& flags) {
  return parse_attention_type(flags.attention, parse_kv_type(flags.kv_dtype));
}

void run_on_all_ranks(const ModelFlags& flags, EngineOptions options, const std::function<void(Engine&)>& lead) {
  const std::unique_ptr<Communicator> comm = make_world_comm({.timeout_seconds = flags.start_timeout_s});
  const LocalShare share = local_share(*comm);
  options.threads = threads_of(flags, share);
  place_threads(flags.pin, share, options);
  options.max_batch_tokens = flags.chunk;
  options.kv_type = parse_kv_type(flags.kv_dtype);
  options.attention = attention_of(flags);
  options.exchange = exchange_of(flags);
  options.timeout_s = flags.timeout_s;
  const ModelConfig config = load_model_config(flags.model);
  agree(*comm, facts_of(flags, config, options));
  Model model = load_model(flags.model, plan_of(flags.plan, config), *comm, format_choice(flags.dtype, flags.quantize),
                           options.threads);
  const WeightFormats formats = model.weights.formats;
  const bool idle_here = model.share().idle();
  agree(*comm, {{"the weights' digest", model.identity},
                {"the format of attention", idle_here ? "" : names(formats.attention, formats.kept_attention)},
                {"the format of experts", idle_here ? "" : names(formats.experts, formats.kept_experts)},
                {"the format of the head", idle_here ? "" : names(formats.head, formats.kept_head)}});
  if (comm->rank() == 0 && model.weights.folder)
    for (const std::string& note : format_notes({*model.weights.folder, config}, config, formats))
      print_error("foe: " + note);
  Engine engine(std::move(model), *comm, options);
  if (comm->rank() != 0) return engine.follow();
  const Placement& placement = engine.model().placement;
  if (const auto idle = std::ranges::count_if(placement.ranks, &Share::idle); idle > 0)
    print_error(fmt::format("foe: {} of {} ranks are idle, because each of the {} groups gets {} of them", idle,
                            comm->size(), engine.model().config.expert_groups, placement.members));
  lead(engine);
  engine.stop();
}

void print_notes(const std::string& model, const Tokenizer& tokenizer, const ModelConfig& config) {
  for (const std::string& note : config_notes(model)) print_error(model + ": " + note);
  for (const std::string& note : tokenizer.notes(config.vocab_size)) print_error(model + ": " + note);
}

void print_now(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  finish_output();
}

std::vector<std::int32_t> parse_tokens(const std::string& flag, const std::string& argument) {
  std::string text = argument;
  if (text.starts_with("@")) {
    std::ifstream file(text.substr(1));
    if (!file) fail("{}: expected a file that can be read, got {}", flag, text.substr(1));
    text.assign(std::istreambuf_iterator<char>(file), {});
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  }
  std::vector<std::int32_t> tokens;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    std::int32_t token = 0;
    const auto [next, error] = std::from_chars(at, end, token);
    if (error != std::errc() || (next != end && *next != ','))
      fail("{}: expected ids separated by commas, got '{}'", flag, std::string(at, std::min(end, at + 20)));
    tokens.push_back(token);
    if (next == end) return tokens;
    at = next + 1;
  }
}

}  // namespace foe
