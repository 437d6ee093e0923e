#include "model/activations.h"

#include <algorithm>

#include "base/check.h"
#include "core/sum_blocks.h"

namespace foe {
namespace {

AlignedBuffer<float> allocate(std::size_t n) {
  return AlignedBuffer<float>(n);
}

template <typename... Buffers>
std::size_t bytes_of(const Buffers&... buffers) {
  return (buffers.span().size_bytes() + ...);
}

// Returns how many tokens one half of a step can have on all ranks together.
int tokens_of_half(const Model& model, int tokens, const ExchangeOptions& options) {
  if (model.share().idle()) return 0;
  if (!options.overlap) return tokens;
  return std::max(std::min(tokens, kOverlapTokens), (tokens + model.placement.members) / 2);
}

// Returns how many rows this rank's experts of a layer can have of so many tokens.
std::size_t rows_of_experts(const Model& model, int layer, std::size_t tokens) {
  const ModelConfig& c = model.config;
  const int of_token = dispatched_entries(c, layer, Dispatch::kPerRank);  // in a federated model, of one of its groups
  return tokens *
         (c.federated() ? model.share().streams() * of_token : std::min(of_token, model.share().experts(layer).size()));
}

// Returns the most hidden units that this rank has of an expert.
int widest_expert(const Model& model, int layer) {
  const ExpertsConfig& experts = model.config.experts(layer);
  return experts.dense() ? model.share().expert_width(layer).size() : experts.widest();
}

// How many rows experts read of each token at most: one, or one for each stream where groups have not synced.
std::size_t most_expert_rows(const Model& model) {
  return model.config.group_sync_every > 1 && model.config.federated() ? model.share().streams() : 1;
}

// Calls f(layer) for every layer that the rank runs, and returns the most that it returns.
template <typename F>
std::size_t most_of_layers(const Model& model, const F& f) {
  std::size_t most = 0;
  const Range own = model.own_layers();
  for (int layer = own.begin; layer < own.end; ++layer) most = std::max<std::size_t>(most, f(layer));
  return most;
}

std::size_t most_experts(const Model& model) {
  return most_of_layers(model, [&](int layer) { return model.share().experts(layer).size(); });
}

ProductScratch make_product_scratch(const Model& model, std::size_t T, std::size_t arrived) {
  const Share& share = model.share();
  const std::size_t D = model.config.hidden_size, G = share.streams();
  const std::size_t of_experts = T * most_expert_rows(model);
  const std::size_t inputs = std::max(of_experts, G * std::min<std::size_t>(T, kInputBlock));
  ProductScratch scratch{.input_TD = allocate(inputs * D), .codes = {}, .list = {}};
  scratch.list.reserve(std::max<std::size_t>({most_experts(model), 3 * G, kSumBlocks}));
  if (share.idle()) return scratch;
  // Of the largest x that products with rounded weights take.
  const WeightFormats& formats = model.weights.formats;
  std::size_t bytes = 0;
  const auto want = [&](WeightFormat format, const KeptFormats& kept, std::size_t rows, std::size_t depth) {
    const auto fit = [&](WeightFormat one) {
      bytes = std::max(bytes, rows * quantised_row_bytes(one, static_cast<int>(depth)));
    };
    fit(format);
    std::ranges::for_each(kept.formats, fit);
  };
  want(formats.attention, formats.kept_attention, inputs, D);
  want(formats.experts, formats.kept_experts, std::max(of_experts, arrived), D);
  for (int l = model.own_layers().begin; l < model.own_layers().end; ++l) {
    want(formats.attention, formats.kept_attention, T, packed_depth(model.layers[l].o_blocks));
    want(formats.experts, formats.kept_experts, rows_of_experts(model, l, T), widest_expert(model, l));
  }
  want(formats.head, formats.kept_head, T, D);
  scratch.codes = AlignedBuffer<std::byte>(bytes);
  return scratch;
}

HeadRows allocate_rows(std::size_t T, int heads, int width) {
  return {heads, width, allocate(T * heads * static_cast<std::size_t>(width))};
}

AttentionScratch make_attention_scratch(const Model& model, std::size_t T) {
  const AttentionConfig& a = model.config.heads();
  const Range kv_heads = model.share().kv_heads;
  const int m = kv_heads.size(), W = a.head_value_width();
  return {.k = allocate_rows(T, m, a.key_width),
          .v = allocate_rows(T, m, W),
          .attended = allocate_rows(T, model.query_heads(), W),
          .squares_BT2 = allocate(std::max<std::size_t>(1, head_blocks(model.config).within(kv_heads).size()) * T * 2)};
}

ExpertsScratch make_experts_scratch(const Model& model, std::size_t T) {
  const ModelConfig& c = model.config;
  const auto most = [&](const auto& f) { return allocate(most_of_layers(model, f)); };
  const auto rows = [&](int layer) { return rows_of_experts(model, layer, T); };
  return {.scores_TE = most([&](int l) { return T * most_expert_rows(model) * expert_table(c, l).columns(); }),
          .hidden_Rf = most([&](int l) { return rows(l) * widest_expert(model, l); }),
          .output_RD = most([&](int l) { return c.experts(l).dense() ? 0 : rows(l) * c.hidden_size; })};
}

// The most partial sums that a rank has of the experts of any layer.
std::size_t most_partials(const Model& model) {
  std::size_t most = 1;
  for (const std::vector<int>& begin : model.placement.expert_begin)
    most = std::max<std::size_t>(most, SumPlan(begin).max_partials());
  return most;
}

// For each layer, the experts of the ranks that rows travel to.
std::vector<std::vector<Range>> members_by_layer(const Model& model) {
  std::vector<std::vector<Range>> members;
  for (int layer = 0; layer < model.config.num_layers(); ++layer)
    members.push_back(experts_of_members(model.placement, model.rank, layer));
  return members;
}

HeadScratch make_head_scratch(const Model& model, std::size_t S) {
  const bool gathers = model.rank == 0 && model.placement.ranks.size() > 1;
  const std::size_t whole = S * model.config.vocab_size;
  HeadScratch head;
  head.logits_Sv = allocate(S * model.share().vocab.size());
  head.gathered = allocate(gathers ? whole : 0);
  head.logits_SV =
      allocate(gathers && (model.placement.group_ranks() > 1 || model.placement.split_sequences) ? whole : 0);
  return head;
}

}  // namespace

StepState::StepState(const Model& model, Communicator& across_groups, int tokens, const ExchangeOptions& options)
    : routing(most_entries(model.config), static_cast<int>(most_experts(model)),
              tokens * static_cast<int>(most_expert_rows(model))) {
  const ModelConfig& c = model.config;
  const Share& share = model.share();
  const std::size_t T = tokens, D = c.hidden_size;
  const std::size_t updates = c.federated() ? share.streams() : most_partials(model);
  r_TD = allocate(T * D);
  term_PTD = across_groups.allocate_terms(model.attention_sums.max_partials() * T * D);
  update_GTD = across_groups.allocate_terms(updates * T * D);
  added_GTD = allocate(c.federated() && c.group_sync_every > 1 ? updates * T * D : 0);
  std::size_t affine = 0;
  for (const LayerSums& layer : model.layers) affine = std::max(affine, layer.affine_parts.size());
  affine_GTD = allocate(affine * T * D);
  q = allocate_rows(T, model.query_heads(), c.heads().key_width);
  for_each_attention(c, [&](const AttentionConfig& attention) {
    const Rotation rotation = attention.rotation();
    if (rotation.width == 0 || std::ranges::find(angles, rotation, &Angles::rotation) != angles.end()) return;
    angles.push_back(
        {rotation, rope_frequencies(rotation), allocate(T * rotation.width / 2), allocate(T * rotation.width / 2)});
  });
  if (model.placement.members > 1 && !share.idle())
    exchange.emplace(c, members_by_layer(model), share.member, options, tokens);
  if (model.placement.split_sequences && !share.idle()) keys.emplace(share.member, model.placement.members);
}

std::size_t StepState::bytes() const {
  const std::size_t routed = routing.experts_J.size() * 4 + routing.begin_T.size() + routing.expert_begin.size();
  std::size_t bytes = 4 * (term_PTD.size() + update_GTD.size() + record_TW.capacity() + routed) +
                      bytes_of(r_TD, added_GTD, affine_GTD, q.x) + (exchange ? exchange->bytes() : 0) +
                      (keys ? keys->bytes() : 0);
  for (const Angles& a : angles) bytes += bytes_of(a.cosines_TR, a.sines_TR);
  return bytes;
}

const Angles& StepState::angles_of(const AttentionConfig& attention) const {
  const auto found = std::ranges::find(angles, attention.rotation(), &Angles::rotation);
  FOE_CHECK(found != angles.end(), "no angles of theta {}", attention.rope_theta);
  return *found;
}

Activations::Activations(const Model& model, Communicator& across_groups, int tokens, int sampled,
                         const ExchangeOptions& options, const RecordOptions& recorded)
    : max_tokens(tokens), max_sampled(sampled), wire(options.wire), record(record_form(model.config, recorded)) {
  const int T = tokens_of_half(model, tokens, options);
  for (int half = 0; half < (options.overlap ? 2 : 1); ++half) {
    states.emplace_back(model, across_groups, T, options);
    states.back().record_TW.reserve(T * record.words());
  }
  const std::optional<ExpertExchange>& exchange = states.front().exchange;
  products = make_product_scratch(model, T, exchange ? exchange->most_in : 0);
  attention = make_attention_scratch(model, T);
  experts = make_experts_scratch(model, T);
  head = make_head_scratch(model, sampled);
  stats.layers.resize(model.config.num_layers());
  for (int l = 0; l < model.config.num_layers(); ++l)
    stats.load.rows_LE.push_back(std::vector<std::int64_t>(model.share().experts(l).size()));
}

std::size_t Activations::bytes() const {
  std::size_t bytes = bytes_of(products.input_TD, products.codes) +
                      bytes_of(attention.k.x, attention.v.x, attention.attended.x, attention.squares_BT2) +
                      bytes_of(experts.scores_TE, experts.hidden_Rf, experts.output_RD) +
                      bytes_of(head.logits_Sv, head.gathered, head.logits_SV);
  for (const StepState& state : states) bytes += state.bytes();
  return bytes;
}

}  // namespace foe
