#include "train/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/attention/attention.h"
#include "train/rows.h"

namespace foe::train {
namespace {

KvShape kernel_shape(const Dims& d, DType precision) {
  if (precision == DType::kBF16) return {d.kv_heads, d.head_dim, d.head_dim, KvType::kBF16, AttentionType::kBF16};
  return {d.kv_heads, d.head_dim, d.head_dim, KvType::kF32};
}

// One KV head with the `count` query heads that share it, in one sequence.
struct HeadGroup {
  const Dims& d;
  int length, count;
  std::size_t first_row;             // the first row of the sequence
  int q_column, k_column, v_column;  // where they begin in a row of qkv
  int head;                          // the first query head in o

  HeadGroup(const Dims& dims, Span span, int sequence, int kv_head)
      : d(dims),
        length(span.length),
        count(d.heads / d.kv_heads),
        first_row(static_cast<std::size_t>(sequence) * length) {
    const int stream = kv_head / d.stream_kv_heads(), local = kv_head % d.stream_kv_heads();
    const int base = stream * d.stream_qkv();
    q_column = base + local * count * d.head_dim;
    k_column = base + (d.stream_heads() + local) * d.head_dim;
    v_column = k_column + d.stream_kv_heads() * d.head_dim;
    head = kv_head * count;
  }

  // The offsets of a position's row in qkv, and of its query head i in o and in log_sum.
  std::size_t qkv_at(int position) const { return (first_row + position) * d.qkv; }
  std::size_t log_sum_at(int position, int i) const { return (first_row + position) * d.heads + head + i; }
  std::size_t o_at(int position, int i) const { return log_sum_at(position, i) * d.head_dim; }
};

// The queries at positions [begin, begin + positions) of every head of the group; row(i, p) is query head i at position
// begin + p.
struct QueryBlock {
  int begin, positions, rows;
  int row(int head, int position) const { return head * positions + position; }
  int keys() const { return begin + positions; }  // how many keys at least one of its queries sees
};

template <typename Body>
void for_each_block(int length, int count, Body&& body) {
  for (int begin = 0; begin < length; begin += kQueryBlock) {
    const int positions = std::min(kQueryBlock, length - begin);
    body(QueryBlock{begin, positions, positions * count});
  }
}

template <typename Body>
void for_each_group(const Dims& d, Span span, Body&& body) {
  for (int s = 0; s < span.sequences; ++s)
    for (int kv = 0; kv < d.kv_heads; ++kv) body(HeadGroup(d, span, s, kv));
}

// Writes the scores of a block against its keys to scratch.scores[row][key].
template <typename T>
void score_block(const HeadGroup& group, const QueryBlock& block, AttentionScratch<T>& s, ProductScratch<T>& products) {
  const int c = group.d.head_dim;
  multiply_packed<T>(block.rows, {s.q.data(), static_cast<std::size_t>(c)}, s.keys_t.view(c, block.keys()),
                     {s.scores.data(), s.score_stride}, Into::kOverwrite, products);
}

// Copies the block's rows of queries (from qkv) or of outputs (from o, do) to or from a contiguous [rows][C].
template <typename T>
void gather_queries(const HeadGroup& group, const QueryBlock& block, const T* qkv, T* out) {
  const int c = group.d.head_dim;
  for (int i = 0; i < group.count; ++i)
    for (int p = 0; p < block.positions; ++p, out += c)
      std::copy_n(qkv + group.qkv_at(block.begin + p) + group.q_column + i * c, c, out);
}

template <typename T>
void gather_outputs(const HeadGroup& group, const QueryBlock& block, const T* o, T* out) {
  const int c = group.d.head_dim;
  for (int i = 0; i < group.count; ++i)
    for (int p = 0; p < block.positions; ++p, out += c) std::copy_n(o + group.o_at(block.begin + p, i), c, out);
}

template <typename T>
Rows<const T> column_of(const HeadGroup& group, const T* qkv, int column) {
  return {qkv + group.qkv_at(0) + column, static_cast<std::size_t>(group.d.qkv)};
}

// Softmax of every row of the block over the keys that it sees. The probability of other keys is 0.
template <typename T>
void softmax_block(const HeadGroup& group, const QueryBlock& block, T* log_sum, AttentionScratch<T>& s) {
  const T scale = 1 / std::sqrt(static_cast<T>(group.d.head_dim));
  for (int i = 0; i < group.count; ++i)
    for (int p = 0; p < block.positions; ++p) {
      const int seen = block.begin + p + 1;
      T* row = s.scores.data() + block.row(i, p) * s.score_stride;
      log_sum[group.log_sum_at(block.begin + p, i)] = softmax_row(row, seen, scale);
      std::fill(row + seen, row + block.keys(), T{0});
    }
}

template <typename T>
void forward_block(const HeadGroup& group, const QueryBlock& block, const T* qkv, T* o, T* log_sum,
                   AttentionScratch<T>& s, ProductScratch<T>& products) {
  const int c = group.d.head_dim;
  gather_queries(group, block, qkv, s.q.data());
  score_block(group, block, s, products);
  softmax_block(group, block, log_sum, s);
  multiply_packed<T>(block.rows, {s.scores.data(), s.score_stride}, s.values.view(block.keys(), c),
                     {s.o.data(), static_cast<std::size_t>(c)}, Into::kOverwrite, products);
  for (int i = 0; i < group.count; ++i)
    for (int p = 0; p < block.positions; ++p)
      std::copy_n(s.o.data() + block.row(i, p) * c, c, o + group.o_at(block.begin + p, i));
}

// Turns scores into probabilities again, and d_scores into the gradient of the scores.
template <typename T>
void softmax_block_backward(const HeadGroup& group, const QueryBlock& block, const T* log_sum, AttentionScratch<T>& s) {
  const int c = group.d.head_dim;
  const T scale = 1 / std::sqrt(static_cast<T>(c));
  for (int i = 0; i < group.count; ++i)
    for (int p = 0; p < block.positions; ++p) {
      const int seen = block.begin + p + 1, r = block.row(i, p);
      T* y = s.scores.data() + r * s.score_stride;
      T* dy = s.d_scores.data() + r * s.score_stride;
      // The sum over keys of y dy is do . o, because o is the sum of y v, and dy is do . v.
      const T delta = dot(s.d_o.data() + r * c, s.o.data() + r * c, c);
      softmax_row_backward(y, dy, seen, scale, log_sum[group.log_sum_at(block.begin + p, i)], delta);
      std::fill(y + seen, y + block.keys(), T{0});
      std::fill(dy + seen, dy + block.keys(), T{0});
    }
}

template <typename T>
void backward_block(const HeadGroup& group, const QueryBlock& block, DType precision, const T* qkv, const T* o,
                    const T* log_sum, const T* d_o, T* dqkv, AttentionScratch<T>& s, ProductScratch<T>& products) {
  const int c = group.d.head_dim, keys = block.keys();
  const auto stride = static_cast<std::size_t>(c);
  gather_queries(group, block, qkv, s.q.data());
  gather_outputs(group, block, o, s.o.data());
  gather_outputs(group, block, d_o, s.d_o.data());
  score_block(group, block, s, products);
  multiply_packed<T>(block.rows, {s.d_o.data(), stride}, s.values_t.view(c, keys), {s.d_scores.data(), s.score_stride},
                     Into::kOverwrite, products);
  softmax_block_backward(group, block, log_sum, s);

  multiply_packed<T>(block.rows, {s.d_scores.data(), s.score_stride}, s.keys.view(keys, c), {s.dq.data(), stride},
                     Into::kOverwrite, products);
  for (int i = 0; i < group.count; ++i)
    for (int p = 0; p < block.positions; ++p)
      std::copy_n(s.dq.data() + block.row(i, p) * c, c, dqkv + group.qkv_at(block.begin + p) + group.q_column + i * c);
  multiply_transposed<T>(precision, block.rows, {s.d_scores.data(), s.score_stride}, keys, {s.q.data(), stride}, c,
                         {s.dk.data(), stride}, Into::kAdd, products);
  multiply_transposed<T>(precision, block.rows, {s.scores.data(), s.score_stride}, keys, {s.d_o.data(), stride}, c,
                         {s.dv.data(), stride}, Into::kAdd, products);
}

}  // namespace

template <typename T>
AttentionScratch<T>::AttentionScratch(const Dims& d, int sequences, int length)
    : kernel(d, sequences, length),
      // An odd number of cache lines, so that the scores of a column are in different cache sets.
      score_stride((static_cast<std::size_t>(length) + 31) / 32 * 32 + 16),
      keys_t(d.head_dim, length),
      keys(length, d.head_dim),
      values_t(d.head_dim, length),
      values(length, d.head_dim) {
  const std::size_t rows = static_cast<std::size_t>(d.heads / d.kv_heads) * kQueryBlock;
  for (AlignedBuffer<T>* buffer : {&q, &o, &dq, &d_o}) *buffer = AlignedBuffer<T>::zeroed(rows * d.head_dim);
  for (AlignedBuffer<T>* buffer : {&scores, &d_scores}) *buffer = AlignedBuffer<T>::zeroed(rows * score_stride);
  for (AlignedBuffer<T>* buffer : {&dk, &dv}) *buffer = AlignedBuffer<T>(product(length, d.head_dim));
}

KernelScratch<float>::KernelScratch(const Dims& d, int sequences, int length)
    : q_TNC(product(sequences * length, d.heads, d.head_dim)),
      k_TMC(product(sequences * length, d.kv_heads, d.head_dim)),
      v_TMC(k_TMC.size()) {
  const std::size_t blocks = product(sequences, (length + kKvBlock - 1) / kKvBlock);
  kv = AlignedBuffer<std::byte>::zeroed(blocks * kernel_shape(d, DType::kF32).block_bytes());
}

namespace {

// All sequences of a shard, each in KV blocks of its own.
Batch batch_of(Span span) {
  const std::vector<std::int32_t> tokens(span.length);
  std::vector<std::int32_t> blocks((span.length + kKvBlock - 1) / kKvBlock);
  std::iota(blocks.begin(), blocks.end(), 0);
  Batch batch;
  for (int s = 0; s < span.sequences; ++s) {
    batch.add_sequence(tokens, 0, blocks, Batch::Sample::kNone);
    for (std::int32_t& block : blocks) block += static_cast<std::int32_t>(blocks.size());
  }
  return batch;
}

// Moves the queries, keys and values of each token, which are together stream by stream, to arrays of their own.
void part_qkv(const Dims& d, int tokens, const float* qkv_TW, KernelScratch<float>& k) {
  const int heads = d.stream_heads() * d.head_dim, kv_heads = d.stream_kv_heads() * d.head_dim;
  float *q = k.q_TNC.data(), *key = k.k_TMC.data(), *value = k.v_TMC.data();
  for (int part = 0; part < tokens * d.streams; ++part) {
    q = std::copy_n(qkv_TW, heads, q);
    key = std::copy_n(qkv_TW + heads, kv_heads, key);
    value = std::copy_n(qkv_TW + heads + kv_heads, kv_heads, value);
    qkv_TW += d.stream_qkv();
  }
}

void attend(const Dims& d, Span span, DType precision, const float* qkv_TW, float* o_TNC, float* log_sum_TN,
            AttentionScratch<float>& scratch) {
  KernelScratch<float>& k = scratch.kernel;
  if (span != k.span) k.batch = batch_of(k.span = span);
  part_qkv(d, span.tokens(), qkv_TW, k);
  const KvShape shape = kernel_shape(d, precision);
  write_kv(k.pool, k.batch, shape, k.k_TMC.data(), k.v_TMC.data(), k.kv.data());
  attention(k.pool, k.batch, shape, d.heads, {}, k.q_TNC.data(), k.kv.data(), o_TNC, log_sum_TN);
}

void attend(const Dims& d, Span span, DType precision, const double* qkv_TW, double* o_TNC, double* log_sum_TN,
            AttentionScratch<double>& scratch) {
  for_each_group(d, span, [&](const HeadGroup& group) {
    const int c = d.head_dim;
    scratch.keys_t.pack(precision, column_of(group, qkv_TW, group.k_column), span.length, c, true);
    scratch.values.pack(precision, column_of(group, qkv_TW, group.v_column), span.length, c, false);
    for_each_block(span.length, group.count, [&](const QueryBlock& block) {
      ProductScratch<double> products;
      forward_block(group, block, qkv_TW, o_TNC, log_sum_TN, scratch, products);
    });
  });
}

}  // namespace

template <typename T>
void attention_forward(const Dims& d, Span span, DType precision, const T* qkv_TW, T* o_TNC, T* log_sum_TN,
                       AttentionScratch<T>& scratch) {
  attend(d, span, precision, qkv_TW, o_TNC, log_sum_TN, scratch);
}

template <typename T>
void attention_backward(const Dims& d, Span span, DType precision, const T* qkv_TW, const T* o_TNC, const T* log_sum_TN,
                        const T* do_TNC, T* dqkv_TW, AttentionScratch<T>& scratch, ProductScratch<T>& products) {
  for_each_group(d, span, [&](const HeadGroup& group) {
    const int c = d.head_dim;
    const Rows<const T> k = column_of(group, qkv_TW, group.k_column), v = column_of(group, qkv_TW, group.v_column);
    scratch.keys_t.pack(precision, k, span.length, c, true);
    scratch.keys.pack(precision, k, span.length, c, false);
    scratch.values_t.pack(precision, v, span.length, c, true);
    // These are added to again and again, so they are together in a cache and not among the queries.
    std::fill_n(scratch.dk.data(), product(span.length, c), T{0});
    std::fill_n(scratch.dv.data(), product(span.length, c), T{0});
    for_each_block(span.length, group.count, [&](const QueryBlock& block) {
      backward_block(group, block, precision, qkv_TW, o_TNC, log_sum_TN, do_TNC, dqkv_TW, scratch, products);
    });
    for (int t = 0; t < span.length; ++t) {
      std::copy_n(scratch.dk.data() + product(t, c), c, dqkv_TW + group.qkv_at(t) + group.k_column);
      std::copy_n(scratch.dv.data() + product(t, c), c, dqkv_TW + group.qkv_at(t) + group.v_column);
    }
  });
}

#define FOE_INSTANTIATE(T)                                                                               \
  template struct AttentionScratch<T>;                                                                   \
  template void attention_forward(const Dims&, Span, DType, const T*, T*, T*, AttentionScratch<T>&);     \
  template void attention_backward(const Dims&, Span, DType, const T*, const T*, const T*, const T*, T*, \
                                   AttentionScratch<T>&, ProductScratch<T>&);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
