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

// Returns how many rows this rank's experts can have of so many tokens.
std::size_t rows_of_experts(const Model& model, std::size_t tokens) {
  const ModelConfig& c = model.config;
  const int of_token = dispatched_entries(c, Dispatch::kPerRank);  // in a federated model, of one of its groups
  return tokens *
         (c.federated() ? model.share().streams() * of_token : std::min(of_token, model.share().experts.size()));
}

ProductScratch make_product_scratch(const Model& model, std::size_t T, std::size_t R, std::size_t arrived) {
  const Share& share = model.share();
  const std::size_t D = model.config.hidden_size, G = share.streams();
  const std::size_t inputs = std::max(T, G * std::min<std::size_t>(T, kInputBlock));
  ProductScratch scratch{.input_TD = allocate(inputs * D), .codes = {}, .list = {}};
  scratch.list.reserve(std::max<std::size_t>({static_cast<std::size_t>(share.experts.size()), 3 * G, kSumBlocks}));
  if (share.idle()) return scratch;
  // Of the largest x that products with rounded weights take.
  const WeightFormats formats = model.weights.formats;
  std::size_t bytes = 0;
  const auto want = [&](WeightFormat format, std::size_t rows, std::size_t depth) {
    bytes = std::max(bytes, rows * quantised_row_bytes(format, static_cast<int>(depth)));
  };
  want(formats.attention, inputs, D);
  want(formats.attention, T, packed_depth(model.o_blocks));
  want(formats.experts, std::max(T, arrived), D);
  want(formats.experts, R, share.expert_width.size());
  want(formats.head, T, D);
  scratch.codes = AlignedBuffer<std::byte>(bytes);
  return scratch;
}

AttentionScratch make_attention_scratch(const Model& model, std::size_t T) {
  const AttentionConfig& a = model.config.heads();
  const int n = model.query_heads(), m = model.share().kv_heads.size(), W = a.head_value_width();
  const auto rows = [T](int heads, int width) {
    return HeadRows{heads, width, allocate(T * heads * static_cast<std::size_t>(width))};
  };
  return {.q = rows(n, a.key_width),
          .k = rows(m, a.key_width),
          .v = rows(m, W),
          .attended = rows(n, W),
          .squares_BT2 = allocate(std::max<std::size_t>(1, model.o_blocks.size()) * T * 2)};
}

ExpertsScratch make_experts_scratch(const Model& model, std::size_t T, std::size_t R) {
  const ModelConfig& c = model.config;
  return {.scores_TE = allocate(T * expert_table(c, 0).columns()),
          .hidden_Rf = allocate(R * model.share().expert_width.size()),
          .output_RD = allocate(c.dense() ? 0 : R * c.hidden_size)};
}

HeadScratch make_head_scratch(const Model& model, std::size_t S) {
  const bool gathers = model.rank == 0 && model.placement.ranks.size() > 1;
  const std::size_t whole = S * model.config.vocab_size;
  HeadScratch head;
  head.logits_Sv = allocate(S * model.share().vocab.size());
  head.gathered = allocate(gathers ? whole : 0);
  head.logits_SV = allocate(gathers && model.placement.group_ranks() > 1 ? whole : 0);
  return head;
}

}  // namespace

StepState::StepState(const Model& model, Communicator& across_groups, int tokens, const ExchangeOptions& options)
    : routing(most_entries(model.config, 0), model.share().experts.size(), tokens) {
  const ModelConfig& c = model.config;
  const Share& share = model.share();
  const std::size_t T = tokens, D = c.hidden_size;
  const std::size_t updates = c.federated() ? share.streams() : std::max(1, model.expert_sums.max_partials());
  r_TD = allocate(T * D);
  term_PTD = across_groups.allocate_terms(model.attention_sums.max_partials() * T * D);
  update_GTD = across_groups.allocate_terms(updates * T * D);
  affine_GTD = allocate(model.affine_parts.size() * T * D);
  for_each_attention(c, [&](const AttentionConfig& attention) {
    const Rotation rotation = rotation_of(attention);
    if (rotation.width == 0 || std::ranges::find(angles, rotation, &Angles::rotation) != angles.end()) return;
    angles.push_back({rotation, allocate(T * rotation.width / 2), allocate(T * rotation.width / 2)});
  });
  if (model.placement.members > 1 && !share.idle())
    exchange.emplace(c, experts_of_members(model.placement, model.rank), share.member, options, tokens);
}

std::size_t StepState::bytes() const {
  const std::size_t routed = routing.experts_J.size() * 4 + routing.begin_T.size() + routing.expert_begin.size();
  std::size_t bytes = 4 * (term_PTD.size() + update_GTD.size() + record_TW.capacity() + routed) +
                      bytes_of(r_TD, affine_GTD) + (exchange ? exchange->bytes() : 0);
  for (const Angles& a : angles) bytes += bytes_of(a.cosines_TR, a.sines_TR);
  return bytes;
}

const Angles& StepState::angles_of(const AttentionConfig& attention) const {
  const auto found = std::ranges::find(angles, rotation_of(attention), &Angles::rotation);
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
  const std::size_t R = rows_of_experts(model, T);
  products = make_product_scratch(model, T, R, exchange ? exchange->most_in : 0);
  attention = make_attention_scratch(model, T);
  experts = make_experts_scratch(model, T, R);
  head = make_head_scratch(model, sampled);
  stats.layers.resize(model.config.num_layers());
  stats.load.experts = model.share().experts.size();
  stats.load.rows_Le.resize(static_cast<std::size_t>(model.config.num_layers()) * stats.load.experts);
}

std::size_t Activations::bytes() const {
  std::size_t bytes =
      bytes_of(products.input_TD, products.codes) +
      bytes_of(attention.q.x, attention.k.x, attention.v.x, attention.attended.x, attention.squares_BT2) +
      bytes_of(experts.scores_TE, experts.hidden_Rf, experts.output_RD) +
      bytes_of(head.logits_Sv, head.gathered, head.logits_SV);
  for (const StepState& state : states) bytes += state.bytes();
  return bytes;
}

}  // namespace foe
