#include "model/products.h"

#include <array>
#include <optional>

#include "core/sum_blocks.h"
#include "kernels/products/gemm.h"
#include "kernels/rows/rows.h"

namespace foe {
namespace {

// The blocks of a dense model's down projection are views of it.
static_assert(kSumBlockUnit % block_depth(WeightFormat::kBF16xBF16) == 0 &&
              kSumBlockUnit % block_depth(WeightFormat::kInt8) == 0 &&
              kSumBlockUnit % block_depth(WeightFormat::kInt4) == 0 &&
              kSumBlockUnit % block_depth(WeightFormat::kQ8_0) == 0);

// Returns the format for which the input of these products is to be rounded, if any needs that. All that do, need the
// same: those of a part have one format, or they keep formats in parts, beside which rows are rounded alike.
std::optional<WeightFormat> rounding_of(std::span<const Product> products) {
  for (const Product& product : products)
    if (rounds_rows(product.w->format)) return product.w->format;
  return std::nullopt;
}

// Rounds the input as the products require it, whose x are at rows and columns of it. Overwrites what was rounded
// before.
void round_input(Step& s, const Input& in, std::span<Product> products) {
  const std::optional<WeightFormat> rounding = rounding_of(products);
  if (!rounding) return;
  const WeightFormat format = *rounding;
  const QuantisedRows to{s.a.products.codes.data(), quantised_row_bytes(format, in.depth)};
  quantise_rows(s.pool, format, in.x, in.stride, in.rows, in.depth, to);
  for (Product& product : products) {
    const std::size_t at = product.x - in.x;
    const auto column = static_cast<int>(at % in.stride);
    product.quantised = from_row({to.data + quantised_bytes(format, column), to.stride}, at / in.stride);
  }
}

// The same for what heads have attended to and products with the blocks of the output projection. Each block of heads
// is rounded by itself, and filled up as output_blocks() says.
void round_attended(Step& s, std::span<const OutputBlock> blocks, std::span<Product> products) {
  const std::optional<WeightFormat> rounding = rounding_of(products);
  if (!rounding) return;
  const WeightFormat format = *rounding;
  const QuantisedRows to{s.a.products.codes.data(), quantised_row_bytes(format, packed_depth(blocks))};
  for (std::size_t b = 0, next; b < blocks.size(); b = next) {
    int columns = blocks[b].columns;
    for (next = b + 1; next < blocks.size() && columns % block_depth(format) == 0; ++next)
      columns += blocks[next].columns;
    quantise_rows(s.pool, format, products[b].x, products[b].x_stride, s.T, columns,
                  {to.data + quantised_bytes(format, blocks[b].at), to.stride});
  }
  for (std::size_t b = 0; b < blocks.size(); ++b)
    products[b].quantised = {to.data + quantised_bytes(format, blocks[b].at), to.stride};
}

// Writes this rank's partial sums to y_PTD. Its terms are s.a.products.list, in ascending order.
void multiply_partials(Step& s, const SumPlan& sums, float* y_PTD) {
  const int rank = s.grid.across_groups().rank();
  for (int i = 0; i < sums.partials(rank); ++i) {
    const SumPlan::Partial partial = sums.partial(rank, i);
    const std::span products = std::span(s.a.products.list).subspan(partial.first, partial.terms);
    products.front().y = y_PTD + static_cast<std::size_t>(i) * s.T * s.model.config.hidden_size;
    multiply_and_sum(s.pool, products, partial.merges);
  }
}

// Returns the products of those experts of a wave that have rows, in ascending order.
template <typename Make>
std::span<Product> products_of_experts(Step& s, const Routing& routing, const ExpertWave& wave, Make&& make) {
  const std::vector<std::int32_t>& begin = routing.expert_begin;
  s.a.products.list.clear();
  for (int e = wave.experts.begin; e < wave.experts.end; ++e)
    if (const int count = begin[e + 1] - begin[e]; count > 0) s.a.products.list.push_back(make(e, begin[e], count));
  return s.a.products.list;
}

// The id of one of this rank's experts, which are counted from its first one on.
int id_of(const Step& s, int layer, int e) {
  return s.model.share().experts(layer).begin + e;
}

// The hidden units that this rank has of it.
int local_width(const Step& s, int layer, int e) {
  const int width = expert_width(s.model.config, layer, id_of(s, layer, e));
  return own_units(width, layer, s.model.config, s.model.share()).size();
}

// The beginning of a wave, from expert `first` on, whose experts are equally wide.
ExpertWave equally_wide(const Step& s, int layer, const ExpertWave& wave, int first) {
  const ExpertsConfig& experts = s.model.config.experts(layer);
  int end = first + 1;
  if (experts.width_of_shared() == experts.width) end = wave.experts.end;
  while (end < wave.experts.end && local_width(s, layer, end) == local_width(s, layer, first)) ++end;
  return {{first, end}, wave.weights};
}

// Writes act(gate) * up to hidden_Rf for the sorted rows of each expert of a wave, which are equally wide.
void multiply_gate_up(Step& s, int layer, const ExpertWave& wave, const Input& in, const Routing& routing) {
  const std::size_t f = local_width(s, layer, wave.experts.begin);
  const auto gate_up = [&](int e, std::size_t row, int count) {
    show(s, {ModelInput::kExpert, layer, id_of(s, layer, e)},
         {in.x, in.stride, routing.token_R.data() + row, count, in.depth});
    return Product{.x = in.x,
                   .x_stride = in.stride,
                   .rows = routing.token_R.data() + row,
                   .count = count,
                   .w = &wave.weights[e].gate_up,
                   .y = s.a.experts.hidden_Rf.data() + row * f,
                   .y_stride = f,
                   .plus = if_any(wave.weights[e].gate_up_bias)};
  };
  const std::span<Product> products = products_of_experts(s, routing, wave, gate_up);
  round_input(s, in, products);
  const ExpertsConfig& experts = s.model.config.experts(layer);
  multiply_gated(s.pool, products, {static_cast<int>(f), experts.activation, experts.gate});
}

// The rows that multiply_gate_up() has written for a wave.
Input hidden_rows(const Step& s, int layer, const ExpertWave& wave, const Routing& routing) {
  const int f = local_width(s, layer, wave.experts.begin);
  const std::size_t first = routing.expert_begin[wave.experts.begin], end = routing.expert_begin[wave.experts.end];
  return {s.a.experts.hidden_Rf.data() + first * f, static_cast<std::size_t>(f), static_cast<int>(end - first), f};
}

// Writes the products of these rows with the down projections to output_RD.
void multiply_down(Step& s, int layer, const ExpertWave& wave, const Routing& routing) {
  const std::size_t D = s.model.config.hidden_size;
  const Input hidden = hidden_rows(s, layer, wave, routing);
  const auto down = [&](int e, std::size_t row, int count) {
    const float* x = s.a.experts.hidden_Rf.data() + row * hidden.stride;
    show(s, {ModelInput::kHidden, layer, id_of(s, layer, e)}, {x, hidden.stride, nullptr, count, hidden.depth});
    return Product{.x = x,
                   .x_stride = hidden.stride,
                   .count = count,
                   .w = &wave.weights[e].down,
                   .y = s.a.experts.output_RD.data() + row * D,
                   .y_stride = D,
                   .plus = if_any(wave.weights[e].down_bias_D)};
  };
  linear(s, hidden, products_of_experts(s, routing, wave, down));
}

}  // namespace

void linear(Step& s, const Input& in, std::span<Product> products) {
  round_input(s, in, products);
  multiply(s.pool, products);
}

void linear(Step& s, const Input& in, const PackedMatrix& w, float* y) {
  Product product{.x = in.x,
                  .x_stride = in.stride,
                  .count = in.rows,
                  .w = &w,
                  .y = y,
                  .y_stride = static_cast<std::size_t>(w.rows)};
  linear(s, in, {&product, 1});
}

void project_output(Step& s, int layer) {
  const std::size_t D = s.model.config.hidden_size;
  const std::span<const OutputBlock> blocks = s.model.layers[layer].o_blocks;
  const bool with_updates = s.model.config.sums_updates(layer), syncs = s.model.config.syncs(layer);
  const float* bias = if_any(s.model.weights.layers[layer].o_bias_D);
  if (bias && with_updates)
    s.pool.parallel_for(blocks.size() * s.T, [&](std::size_t row) { add_to(s.update_TD(0) + row * D, bias, D); });
  s.a.products.list.clear();
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    Product product{.x = s.a.attention.attended.row(0) + blocks[b].column,
                    .x_stride = s.a.attention.attended.stride(),
                    .count = s.T,
                    .w = &s.model.layers[layer].o[b],
                    .y = syncs ? nullptr : s.update_TD(static_cast<int>(b)),
                    .y_stride = D};
    if (with_updates) {
      product.plus = s.update_TD(static_cast<int>(b));
      product.plus_stride = D;
    } else if (s.model.config.federated() || (b == 0 && s.model.share().kv_heads.begin == 0)) {
      product.plus = bias;
    }
    s.a.products.list.push_back(product);
  }
  const HeadRows& attended = s.a.attention.attended;
  const auto width = static_cast<int>(attended.stride());
  show(s, {ModelInput::kAttended, layer}, {attended.x.data(), attended.stride(), nullptr, s.T, width});
  round_attended(s, blocks, s.a.products.list);
  if (syncs)
    multiply_partials(s, s.model.attention_sums, s.state.term_PTD.data());
  else
    multiply(s.pool, s.a.products.list);
}

void multiply_experts(Step& s, int layer, const Input& in, const Routing& routing) {
  ExpertStore& store = *s.model.weights.experts;
  const int experts = static_cast<int>(routing.expert_begin.size()) - 1;
  for (int first = 0; first < experts;) {
    const ExpertWave wave = store.acquire(layer, routing.expert_begin, first);
    for (int e = wave.experts.begin; e < wave.experts.end;) {
      const ExpertWave part = equally_wide(s, layer, wave, e);
      multiply_gate_up(s, layer, part, in, routing);
      multiply_down(s, layer, part, routing);
      e = part.experts.end;
    }
    store.release(layer);
    first = wave.experts.end;
  }
}

void multiply_dense(Step& s, int layer) {
  const std::vector<int>& begin = s.model.layers[layer].down_begin;
  const int blocks = static_cast<int>(begin.size()) - 1;
  if (blocks <= 0) return;
  ExpertStore& store = *s.model.weights.experts;
  const ExpertWave wave = store.acquire(layer, s.state.routing.expert_begin);
  multiply_gate_up(s, layer, wave, input_rows(s, s.T), s.state.routing);
  const Input hidden = hidden_rows(s, layer, wave, s.state.routing);
  const PackedMatrix& down = wave.weights[0].down;
  // Whoever has the first hidden units adds the bias, so that it is in the sum once.
  const bool first = s.model.share().expert_width(layer).begin == 0;
  std::array<PackedMatrix, kSumBlocks> parts;
  s.a.products.list.clear();
  for (int b = 0; b < blocks; ++b) {
    parts[b] = down.view(0, down.rows, begin[b], begin[b + 1] - begin[b]);
    s.a.products.list.push_back({.x = hidden.x + begin[b],
                                 .x_stride = hidden.stride,
                                 .count = s.T,
                                 .w = &parts[b],
                                 .y_stride = static_cast<std::size_t>(s.model.config.hidden_size),
                                 .plus = first && b == 0 ? if_any(wave.weights[0].down_bias_D) : nullptr});
  }
  show(s, {ModelInput::kHidden, layer}, {hidden.x, hidden.stride, nullptr, hidden.rows, hidden.depth});
  round_input(s, hidden, s.a.products.list);
  multiply_partials(s, s.model.layers[layer].experts, s.state.update_GTD.data());
  store.release(layer);
}

}  // namespace foe
