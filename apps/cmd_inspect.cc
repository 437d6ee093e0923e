// foe inspect: shows what a model is, what each rank of a plan would hold and send, and how fast it could decode.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "commands.h"
#include "common.h"
#include "core/model_tensors.h"
#include "costs/roofline_report.h"
#include "costs/wire_cost.h"
#include "weights/config_json.h"
#include "weights/kept_formats.h"
#include "weights/packed_tensors.h"

namespace foe {
namespace {

struct InspectFlags {
  std::string model;
  PlanFlags plan;
  std::string dispatch = "rank";
  std::string wire = "f32";
  std::string kv_dtype = "bf16", quantize;
  int ranks = 1, nodes = 1;
  bool json = false, roofline = false, tensors = false;
  RooflineFlags limits;
};

struct RankReport {
  Share share;
  Range layers;
  double weight_bytes = 0;          // of packed matrices; the first stage's ranks map the whole embedding
  std::int64_t kv_token_bytes = 0;  // per cached position
  WireCost decode;
};

RankReport report(const ModelConfig& c, const Placement& placement, const std::vector<int>& nodes, int rank,
                  const StoredTensors* stored, const WeightFormats& formats, KvType kv_type,
                  const ExchangeOptions& options) {
  RankReport r;
  r.share = placement.ranks[rank];
  if (r.share.idle()) return r;
  r.weight_bytes = stored ? matrix_bytes(*stored, c, formats, r.share) : matrix_elements(c, r.share).bytes(formats);
  const KvShape kv{r.share.kv_heads.size(), c.heads().key_width, c.heads().head_value_width(), kv_type};
  r.layers = {r.share.stage_layers.begin, std::min(r.share.stage_layers.end, c.num_layers())};
  r.kv_token_bytes = r.layers.size() * static_cast<std::int64_t>(kv.block_bytes()) / kKvBlock;
  r.decode = decode_wire_cost(c, placement, nodes, rank, options, 1, 1, kv_type);
  return r;
}

nlohmann::json range_json(Range r) {
  return {r.begin, r.end};
}

// What the rank has of the experts of every layer that it runs, or nothing if it is not the same of all.
std::optional<Range> of_every_layer(const Share& share, Range ExpertsShare::*part) {
  if (share.layers.empty()) return Range{};
  const Range first = share.layers[share.stage_layers.begin].*part;
  for (std::size_t l = 0; l < share.layers.size(); ++l)
    if (const Range own = share.layers[l].*part;
        share.runs(static_cast<int>(l)) && (own.begin != first.begin || own.end != first.end))
      return std::nullopt;
  return first;
}

// What the rank has of the experts: the same of every layer, or a list by layer.
nlohmann::json experts_json(const Share& share, Range ExpertsShare::*part) {
  if (const std::optional<Range> same = of_every_layer(share, part)) return range_json(*same);
  nlohmann::json list = nlohmann::json::array();
  for (const ExpertsShare& layer : share.layers) list.push_back(range_json(layer.*part));
  return list;
}

void print_json(const ModelConfig& c, const Placement& placement, const std::vector<RankReport>& reports,
                const WeightFormats& formats, KvType kv_type, const std::optional<Roofline>& roofline,
                const nlohmann::json& tensors) {
  nlohmann::json out{{"config", nlohmann::json::parse(model_config_json(c))},
                     {"parameters", parameter_count(c)},
                     {"active_parameters", active_parameter_count(c)},
                     {"dtype", names(formats.attention, formats.kept_attention)},
                     {"experts_dtype", names(formats.experts, formats.kept_experts)},
                     {"head_dtype", names(formats.head, formats.kept_head)},
                     {"kv_dtype", to_string(kv_type)},
                     {"plan", to_string(placement.plan)},
                     {"ep_attention", placement.split_sequences ? "split" : "whole"},
                     {"ranks", nlohmann::json::array()}};
  for (const RankReport& r : reports)
    out["ranks"].push_back({{"layers", range_json(r.layers)},
                            {"groups", range_json(r.share.groups)},
                            {"kv_heads", range_json(r.share.kv_heads)},
                            {"experts", experts_json(r.share, &ExpertsShare::experts)},
                            {"expert_width", experts_json(r.share, &ExpertsShare::width)},
                            {"vocab", range_json(r.share.vocab)},
                            {"weight_bytes", static_cast<std::int64_t>(r.weight_bytes)},
                            {"kv_bytes_per_token", r.kv_token_bytes},
                            {"decode_sums", r.decode.sum_calls},
                            {"decode_sum_messages", r.decode.sums.messages},
                            {"decode_sum_bytes", r.decode.sums.bytes},
                            {"decode_sum_node_bytes", r.decode.sums.node_bytes},
                            {"decode_gather_bytes", r.decode.gather_bytes},
                            {"decode_sends", r.decode.send_calls},
                            {"decode_send_messages", r.decode.sends.messages},
                            {"decode_send_bytes", r.decode.sends.bytes},
                            {"decode_send_node_bytes", r.decode.sends.node_bytes},
                            {"decode_all_to_alls", r.decode.all_to_all_calls},
                            {"decode_key_bytes", r.decode.key_bytes},
                            {"expected_dispatch_bytes", r.decode.dispatch_bytes},
                            {"expected_return_bytes", r.decode.return_bytes}});
  if (roofline) out["roofline"] = to_json(*roofline);
  if (!tensors.is_null()) out["tensors"] = tensors;
  fmt::print("{}\n", out.dump(2));
}

void print_experts(const ExpertsConfig& e) {
  if (e.dense())
    fmt::print("dense, feed-forward width {}\n", e.width);
  else
    fmt::print("{} experts of width {}, {} per token\n", e.count, e.width, e.per_token);
}

// A line for all layers, or one for each run of layers that are alike.
void print_experts_of_layers(const ModelConfig& c) {
  for (int first = 0, end; first < c.num_layers(); first = end) {
    for (end = first + 1; end < c.num_layers() && c.experts(end) == c.experts(first);) ++end;
    if (end - first < c.num_layers()) fmt::print("layers [{}, {}): ", first, end);
    print_experts(c.experts(first));
  }
}

std::string scaling_of(const AttentionConfig& a) {
  if (a.rope_factor != 1) return fmt::format(" scaled by {:g}", a.rope_factor);
  if (a.rope_scaling.type == RopeType::kDefault) return "";
  return fmt::format(" scaled by {:g} ({})", a.rope_scaling.factor, to_string(a.rope_scaling.type));
}

void print_table(const ModelConfig& c, const Placement& placement, const std::vector<RankReport>& reports,
                 const WeightFormats& formats, KvType kv_type) {
  fmt::print(
      "{:.2f} M parameters, {:.2f} M active per token; attention in {}, experts in {}, head in {}, KV cache in {}\n",
      parameter_count(c) / 1e6, active_parameter_count(c) / 1e6, names(formats.attention, formats.kept_attention),
      names(formats.experts, formats.kept_experts), names(formats.head, formats.kept_head), to_string(kv_type));
  fmt::print("{} layers, width {}, {} query and {} KV heads of {}, vocabulary {}, context {}\n", c.num_layers(),
             c.hidden_size, c.heads().query_heads, c.heads().kv_heads, c.heads().key_width, c.vocab_size,
             c.max_position_embeddings);
  int windows = 0, widest = 0;
  for_each_attention(c, [&](const AttentionConfig& a) {
    windows += a.window > 0;
    widest = std::max(widest, a.window);
  });
  if (windows > 0)
    fmt::print("sliding windows in {} of {} layers, of at most {} positions\n", windows, c.num_layers(), widest);
  print_experts_of_layers(c);
  if (c.federated())
    fmt::print("federated: {} groups, group_sync {}, {} sums over groups in {} layers\n", c.expert_groups,
               to_string(c.group_sync), c.group_sums(), c.num_layers());
  else if (c.expert_groups > 1)
    fmt::print("shared residual, routing in {} groups\n", c.expert_groups);
  fmt::print("QK-norm {}, RoPE theta {:g}{}, {} head\n\n", to_string(c.heads().qk_norm), c.heads().rope_theta,
             scaling_of(c.heads()), c.tie_word_embeddings ? "tied" : "untied");

  fmt::print(
      "plan {} on {} rank{}; [begin, end) of what each holds, and what it sends for one token decoded greedily:\n",
      to_string(placement.plan), reports.size(), reports.size() == 1 ? "" : "s");
  fmt::print("{:>4}  {:>9}  {:>9}  {:>11}  {:>13}  {:>10}  {:>11}  {:>5}  {:>10}  {:>13}  {:>12}\n", "rank", "groups",
             "KV heads", "experts", "of their width", "weights MB", "KV B/token", "sums", "sum bytes", "between nodes",
             "gather bytes");
  const auto text = [](Range r) { return fmt::format("[{}, {})", r.begin, r.end); };
  const auto of_experts = [&](const Share& share, Range ExpertsShare::*part) {
    const std::optional<Range> same = of_every_layer(share, part);
    return same ? text(*same) : std::string("by layer");
  };
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const RankReport& r = reports[i];
    fmt::print("{:>4}  {:>9}  {:>9}  {:>11}  {:>14}  {:>10.2f}  {:>11}  {:>5}  {:>10}  {:>13}  {:>12}\n", i,
               c.federated() ? text(r.share.groups) : "-", text(r.share.kv_heads),
               of_experts(r.share, &ExpertsShare::experts), of_experts(r.share, &ExpertsShare::width),
               r.weight_bytes / 1e6, r.kv_token_bytes, r.decode.sum_calls, r.decode.sums.bytes,
               r.decode.sums.node_bytes, r.decode.gather_bytes);
    if (placement.stages > 1)
      fmt::print(
          "      layers {}; {} bytes of rows to the next stage or of logits to rank 0, {} of them between nodes\n",
          text(r.layers), r.decode.sends.bytes, r.decode.sends.node_bytes);
    if (r.decode.all_to_all_calls > 0)
      fmt::print(
          "      {} all-to-alls; {:.0f} bytes to experts elsewhere for a token of its own, {:.0f} back for another"
          " rank's (mean over equally likely selections)\n",
          r.decode.all_to_all_calls, r.decode.dispatch_bytes, r.decode.return_bytes);
    if (placement.split_sequences && !r.share.idle())
      fmt::print("      {} bytes of keys and values of a token of its own, to the ranks that split its sequence\n",
                 r.decode.key_bytes);
    if (r.share.idle())
      fmt::print("      rank {} is idle: {} groups on {} ranks get {} each\n", i, c.expert_groups, reports.size(),
                 placement.members);
    else if (r.share.kv_heads.size() == 0)
      fmt::print("      rank {} has no attention heads: more ranks than the {} blocks of KV heads\n", i,
                 placement.attention_begin.back());
  }
}

// The format that a row's tensors have in memory, and what they take there in all, without padding.
struct TensorMemory {
  std::string format;
  std::int64_t bytes = 0;
};

TensorMemory memory_of(const ModelConfig& config, const ModelTensor& row, const StoredTensors& stored,
                       const WeightFormats& formats) {
  // The head has a copy of its own in memory, even if it is the embedding.
  const int count = row.role == TensorRole::kHead ? 1 : row.count;
  const auto in = [&](const char* format, double bits) {
    const double elements = static_cast<double>(count) * static_cast<double>(row.size());
    return TensorMemory{format, static_cast<std::int64_t>(elements * bits / 8)};
  };
  const auto in_format = [&](WeightFormat format) { return in(to_string(format), bits(format)); };
  switch (row.format) {
    case TensorFormat::kAttention:
    case TensorFormat::kExperts:
    case TensorFormat::kHead:
      return in_format(format_in_memory(stored, config, formats, row));
    case TensorFormat::kFile:
      return in_format(format_of(stored.find(row).tensor.dtype));
    case TensorFormat::kF32:
      break;
  }
  return in("f32", 32);
}

nlohmann::json tensors_json(const ModelConfig& config, const StoredTensors& stored, const WeightFormats& formats) {
  auto rows = nlohmann::json::array();
  for (const ModelTensor& row : stored.table().rows()) {
    const TensorMemory memory = memory_of(config, row, stored, formats);
    rows.push_back({{"name", row.name},
                    {"count", row.count},
                    {"shape", row.shape},
                    {"split", to_string(row.split)},
                    {"part", to_string(row.format)},
                    {"format", memory.format},
                    {"bytes", memory.bytes}});
  }
  return rows;
}

void print_tensors(const ModelConfig& config, const StoredTensors& stored, const WeightFormats& formats) {
  fmt::print("\nall tensors; {{}} is the number of an expert; bytes in memory, of all experts, without padding:\n");
  fmt::print("{:<54}  {:>5}  {:>16}  {:<25}  {:<14}  {:<8}  {:>13}\n", "name", "count", "shape", "split", "part",
             "format", "bytes");
  std::int64_t sum = 0;
  for (const ModelTensor& row : stored.table().rows()) {
    const TensorMemory memory = memory_of(config, row, stored, formats);
    fmt::print("{:<54}  {:>5}  {:>16}  {:<25}  {:<14}  {:<8}  {:>13}\n", row.name, row.count, to_string(row.shape),
               to_string(row.split), to_string(row.format), memory.format, memory.bytes);
    sum += memory.bytes;
  }
  fmt::print("{} parameters, {} bytes\n", parameter_count(config), sum);
}

// Whether there is more than a configuration, of which one may want to know what it would need.
bool has_weights(const std::string& model) {
  namespace fs = std::filesystem;
  const fs::path folder = model;
  return !fs::is_directory(folder) || fs::exists(folder / "model.safetensors") ||
         fs::exists(folder / "model.safetensors.index.json");
}

// Returns the formats that weights in bf16 have in memory.
WeightFormats formats_of_bf16(const FormatChoice& choice) {
  constexpr WeightFormat kOwn = WeightFormat::kBF16;
  return {choice.attention.value_or(kOwn), choice.experts.value_or(kOwn), choice.head.value_or(kOwn)};
}

void run_inspect(const InspectFlags& flags) {
  const ModelConfig config = load_model_config(flags.model);
  if (flags.nodes > flags.ranks)
    fail("--nodes: expected at most {}, one for each rank, got {}", flags.ranks, flags.nodes);
  std::vector<int> nodes;
  for (int rank = 0; rank < flags.ranks; ++rank) nodes.push_back(rank * flags.nodes / flags.ranks);
  if (flags.roofline && flags.nodes > 1)
    fail("--roofline: expected one node, whose limits are measured here, got --nodes {}", flags.nodes);
  const Placement placement = make_placement(config, plan_of(flags.plan, config), flags.ranks, nodes);
  for (const std::string& note : config_notes(flags.model)) fmt::print(stderr, "{}: {}\n", flags.model, note);
  std::optional<TensorFolder> folder;
  std::optional<StoredTensors> stored;
  WeightFormats formats = formats_of_bf16(format_choice("", flags.quantize));
  if (has_weights(flags.model)) {
    folder.emplace(flags.model);
    stored.emplace(*folder, config);
    const FormatChoice choice = format_choice("", flags.quantize);
    formats = formats_in_memory(*folder, stored_formats(*stored, config), choice);
    keep_formats(*stored, config, choice, formats);
  } else {
    if (flags.tensors) fail("--tensors: expected a folder with weights, got {} without", flags.model);
    fmt::print(stderr, "{}: there are no weights; what follows is true of weights in bf16\n", flags.model);
  }
  const ExchangeOptions options{parse_dispatch(flags.dispatch), parse_wire(flags.wire)};
  const KvType kv_type = parse_kv_type(flags.kv_dtype);
  std::vector<RankReport> reports;
  for (int rank = 0; rank < flags.ranks; ++rank)
    reports.push_back(report(config, placement, nodes, rank, stored ? &*stored : nullptr, formats, kv_type, options));
  std::optional<Roofline> roofline;
  if (flags.roofline) roofline = measure_roofline(config, placement, formats, kv_type, flags.limits);
  if (flags.json)
    return print_json(config, placement, reports, formats, kv_type, roofline,
                      flags.tensors ? tensors_json(config, *stored, formats) : nlohmann::json());
  print_table(config, placement, reports, formats, kv_type);
  if (flags.tensors) print_tensors(config, *stored, formats);
  if (roofline) print_roofline(*roofline);
}

}  // namespace

void add_inspect_command(Command app) {
  auto flags = std::make_shared<InspectFlags>();
  Command command = app.subcommand("inspect", "Show a model's size and shape, and what each rank would hold and send");
  add_model(command, flags->model);
  command.option("--ranks", flags->ranks, "number of ranks that would share the model").range(1, 4096).show_default();
  command.option("--nodes", flags->nodes, "number of machines, each with an equal part of the ranks")
      .range(1, 4096)
      .show_default();
  add_plan(command, flags->plan);
  command
      .option(
          "--dispatch", flags->dispatch,
          "where ranks share a group's experts, as in plan ep: a token's row is sent once to each rank that has some of"
          " its experts, or once for each expert")
      .one_of({"rank", "expert"})
      .show_default();
  command.option("--wire", flags->wire, "number format of what ranks send each other")
      .one_of({"f32", "bf16", "int8"})
      .show_default();
  add_quantize(command, flags->quantize);
  add_kv_dtype(command, flags->kv_dtype);
  command.flag("--tensors", flags->tensors,
               "list all tensors of the model: how many, shape, how a plan splits them over ranks, format, bytes");
  const Option roofline = command.flag("--roofline", flags->roofline,
                                       "measure how fast this machine's memory and arithmetic are, and print the most "
                                       "tokens/s that they allow decoding");
  command.option("--batch", flags->limits.batches, "with --roofline: numbers of sequences that decode together")
      .list()
      .range(1, 1 << 20)
      .needs(roofline)
      .show_default();
  command.option("--context", flags->limits.context, "with --roofline: positions that each sequence attends to")
      .range(1, 1 << 24)
      .needs(roofline)
      .show_default();
  command
      .option("--threads", flags->limits.threads,
              "with --roofline: threads that measure, for all ranks together; default: all cores")
      .range(1, 1024)
      .needs(roofline);
  command.flag("--json", flags->json, "print a JSON object instead of a table");
  runs_on_model(command, flags->model, [flags] { run_inspect(*flags); });
}

}  // namespace foe
