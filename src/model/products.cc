#include "model/products.h"

#include "kernels/products/gemm.h"

namespace foe {
namespace {

// Returns the rows from a column on, which must be a multiple of the format's block.
QuantisedRows from_column(WeightFormat format, const QuantisedRows& rows, int column) {
  if (!rows.data) return {};
  return {rows.data + quantised_bytes(format, column), rows.stride};
}

// Rounds attended_TnC as products with the output projection require it, each block of heads by itself. Returns nothing
// if they take floats.
QuantisedRows quantise_attended(Step& s, std::size_t n_width) {
  const std::span<const OutputBlock> blocks = s.model.o_blocks;
  const WeightFormat format = formats_of(s.model.weights).attention;
  if (!rounds_rows(format) || blocks.empty()) return {};
  const QuantisedRows to{s.a.products.codes.data(), quantised_row_bytes(format, packed_depth(blocks))};
  for (std::size_t b = 0, next; b < blocks.size(); b = next) {
    int columns = blocks[b].columns;
    for (next = b + 1; next < blocks.size() && columns % block_depth(format) == 0; ++next)
      columns += blocks[next].columns;
    quantise_rows(s.pool, format, s.a.attention.attended_TnC.data() + blocks[b].column, n_width, s.T, columns,
                  {to.data + quantised_bytes(format, blocks[b].at), to.stride});
  }
  return to;
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

// Returns the products of the local experts that have rows, in ascending order.
template <typename Make>
std::span<const Product> products_of_experts(Step& s, const Routing& routing, Make&& make) {
  const std::vector<std::int32_t>& begin = routing.expert_begin;
  s.a.products.list.clear();
  for (std::size_t e = 0; e + 1 < begin.size(); ++e)
    if (const int count = begin[e + 1] - begin[e]; count > 0) s.a.products.list.push_back(make(e, begin[e], count));
  return s.a.products.list;
}

// Writes silu(gate) * up to hidden_Rf for the sorted rows of each local expert.
void multiply_gate_up(Step& s, const LayerWeights& w, const float* x, std::size_t x_stride, int rows,
                      const Routing& routing) {
  const int f = s.model.share().expert_width.size();
  const QuantisedRows x_codes = quantise(s, w.experts[0].gate_up, x, x_stride, rows);
  const auto gate_up = [&](std::size_t e, std::size_t row, int count) {
    return Product{.x = x,
                   .x_stride = x_stride,
                   .rows = routing.token_R.data() + row,
                   .count = count,
                   .w = &w.experts[e].gate_up,
                   .y = s.a.experts.hidden_Rf.data() + row * f,
                   .y_stride = static_cast<std::size_t>(f),
                   .quantised = x_codes};
  };
  multiply_swiglu(s.pool, products_of_experts(s, routing, gate_up), f);
}

}  // namespace

QuantisedRows quantise(Step& s, const PackedMatrix& w, const float* x, std::size_t x_stride, int rows, int slot) {
  if (!rounds_rows(w.format)) return {};
  const std::size_t stride = quantised_row_bytes(w.format, w.depth);
  const QuantisedRows to{s.a.products.codes.data() + static_cast<std::size_t>(slot) * rows * stride, stride};
  quantise_rows(s.pool, w.format, x, x_stride, rows, w.depth, to);
  return to;
}

void project_output(Step& s, int layer, bool own_updates) {
  const std::size_t n_width = s.model.query_heads() * s.model.config.heads().key_width;
  const QuantisedRows codes = quantise_attended(s, n_width);
  s.a.products.list.clear();
  for (std::size_t b = 0; b < s.model.o_blocks.size(); ++b) {
    const OutputBlock& block = s.model.o_blocks[b];
    const PackedMatrix& o = s.model.blocks[layer].o[b];
    s.a.products.list.push_back({.x = s.a.attention.attended_TnC.data() + block.column,
                                 .x_stride = n_width,
                                 .rows = nullptr,
                                 .count = s.T,
                                 .w = &o,
                                 .y = nullptr,
                                 .y_stride = static_cast<std::size_t>(s.model.config.hidden_size),
                                 .plus = own_updates ? s.update_TD(static_cast<int>(b)) : nullptr,
                                 .quantised = from_column(o.format, codes, block.at),
                                 .plus_stride = static_cast<std::size_t>(s.model.config.hidden_size)});
  }
  multiply_partials(s, s.model.attention_sums, s.state.term_PTD.data());
}

void multiply_experts(Step& s, const LayerWeights& w, const float* x, std::size_t x_stride, int rows,
                      const Routing& routing) {
  if (w.experts.empty()) return;
  const std::size_t D = s.model.config.hidden_size, f = s.model.share().expert_width.size();
  multiply_gate_up(s, w, x, x_stride, rows, routing);
  const QuantisedRows codes =
      quantise(s, w.experts[0].down, s.a.experts.hidden_Rf.data(), f, routing.expert_begin.back());
  const auto down = [&](std::size_t e, std::size_t row, int count) {
    return Product{.x = s.a.experts.hidden_Rf.data() + row * f,
                   .x_stride = f,
                   .rows = nullptr,
                   .count = count,
                   .w = &w.experts[e].down,
                   .y = s.a.experts.output_RD.data() + row * D,
                   .y_stride = D,
                   .quantised = from_row(codes, row)};
  };
  multiply(s.pool, products_of_experts(s, routing, down));
}

void multiply_dense(Step& s, int layer) {
  const LayerWeights& w = s.model.weights.layers[layer];
  const std::vector<PackedMatrix>& down = s.model.blocks[layer].down;
  if (down.empty()) return;
  const std::size_t D = s.model.config.hidden_size, f = s.model.share().expert_width.size();
  multiply_gate_up(s, w, s.a.products.input_TD.data(), D, s.T, s.state.routing);
  const QuantisedRows codes = quantise(s, w.experts[0].down, s.a.experts.hidden_Rf.data(), f, s.T);
  s.a.products.list.clear();
  for (std::size_t b = 0; b < down.size(); ++b)
    s.a.products.list.push_back({.x = s.a.experts.hidden_Rf.data() + s.model.down_begin[b],
                                 .x_stride = f,
                                 .rows = nullptr,
                                 .count = s.T,
                                 .w = &down[b],
                                 .y = nullptr,
                                 .y_stride = D,
                                 .quantised = from_column(down[b].format, codes, s.model.down_begin[b])});
  multiply_partials(s, s.model.expert_sums, s.state.update_GTD.data());
}

}  // namespace foe
