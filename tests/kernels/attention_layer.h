// Sequences with random queries, keys and values, for tests of attention.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "each_target.h"
#include "kernels/attention/attention.h"
#include "numerics.h"

namespace foe {

// The types of the cache and of what is multiplied.
struct Types {
  KvType kv = KvType::kF32;
  AttentionType attention = AttentionType::kF32;
};
inline constexpr Types kRounded = {KvType::kBF16, AttentionType::kBF16};

// Runs a body with every instruction set and, for products in bf16, also with and without tile registers.
template <typename Body>
void for_each_target_of(Types types, Body&& body) {
  for_each_target([&] {
    body();
    if (types.attention == AttentionType::kF32 || !tiles()) return;
    const WithoutTiles without;
    SCOPED_TRACE("without tiles");
    body();
  });
}

struct Heads {
  int query;
  int kv;
};
// Of a head: of queries and keys, and of values.
struct Widths {
  int key;
  int value;
  Widths(int both) : key(both), value(both) {}  // NOLINT: most tests have one
  Widths(int key_, int value_) : key(key_), value(value_) {}
};
// AttentionParams, but for the sinks.
struct Rule {
  double scale = 0, softcap = 0;
  int window = 0;
  bool sinks = false;
};
// A sequence with all of its queries, keys and values, and the results of the queries that have run.
struct Sequence {
  int length;
  std::vector<float> q_SnC, k_SmC, v_SmW, out_SnW;
  std::vector<std::int32_t> blocks;
};

// The KV cache of one layer, and sequences whose blocks are in it in random order. The cache starts as NaN (also the
// scales of int8), so that reading anything that was not written shows in the results.
struct Layer {
  Heads heads;
  KvShape shape;
  Rule rule;
  std::vector<float> sinks_n;  // around the scores
  std::vector<Sequence> sequences;
  std::vector<std::byte> kv;
  std::vector<float> log_sum_Tn;  // of the last run

  Layer(Heads heads_, Widths widths, Types types, const std::vector<int>& lengths, std::uint64_t seed, Rule rule_ = {})
      : heads(heads_), shape{heads_.kv, widths.key, widths.value, types.kv, types.attention}, rule(rule_) {
    if (rule.sinks) sinks_n = random_values(heads.query, seed + 3000);
    const std::size_t n = heads.query, m = heads.kv, C = widths.key, W = widths.value;
    std::vector<std::int32_t> free;
    for (const int length : lengths) {
      ++seed;
      sequences.push_back({length,
                           random_values(length * n * C, seed),
                           random_values(length * m * C, seed + 1000),
                           random_values(length * m * W, seed + 2000),
                           std::vector<float>(length * n * W),
                           {}});
      for (int i = 0; i < length; i += kKvBlock) free.push_back(static_cast<std::int32_t>(free.size()));
    }
    kv.resize(free.size() * shape.block_bytes());
    clear();
    std::sort(free.begin(), free.end(), [&](int a, int b) { return random_bits(seed, a) < random_bits(seed, b); });
    for (Sequence& s : sequences)
      for (int i = 0; i < s.length; i += kKvBlock) {
        s.blocks.push_back(free.back());
        free.pop_back();
      }
  }

  AttentionParams params() const { return {rule.scale, rule.softcap, rule.window, sinks_n}; }

  void clear() { std::fill(kv.begin(), kv.end(), std::byte{0xff}); }

  // `count` tokens of a sequence, from token `first` on.
  struct Chunk {
    int sequence;
    int first;
    int count;
  };

  // Runs one step over some chunks: writes their keys and values, and then computes attention for their queries.
  void run(ThreadPool& pool, const std::vector<Chunk>& chunks) {
    const std::size_t n = heads.query, m = heads.kv, C = shape.key_width, W = shape.value_width;
    Batch batch;
    std::vector<float> q_TnC, k_TmC, v_TmW;
    const auto append = [](std::vector<float>& to, const std::vector<float>& from, std::size_t width, const Chunk& c) {
      to.insert(to.end(), from.begin() + c.first * width, from.begin() + (c.first + c.count) * width);
    };
    for (const Chunk& c : chunks) {
      const Sequence& s = sequences[c.sequence];
      batch.add_sequence(std::vector<std::int32_t>(c.count), c.first, s.blocks, Batch::Sample::kNone);
      append(q_TnC, s.q_SnC, n * C, c);
      append(k_TmC, s.k_SmC, m * C, c);
      append(v_TmW, s.v_SmW, m * W, c);
    }
    std::vector<float> out_TnW(batch.num_tokens() * n * W);
    write_kv(pool, batch, shape, k_TmC.data(), v_TmW.data(), kv.data());
    log_sum_Tn.resize(batch.num_tokens() * n);
    attention(pool, batch, shape, heads.query, params(), q_TnC.data(), kv.data(), out_TnW.data(), log_sum_Tn.data());
    const float* out = out_TnW.data();
    for (const Chunk& c : chunks) {
      std::copy(out, out + c.count * n * W, sequences[c.sequence].out_SnW.begin() + c.first * n * W);
      out += c.count * n * W;
    }
  }

  void run_in_chunks(ThreadPool& pool, int size) {
    for (int s = 0; s < static_cast<int>(sequences.size()); ++s)
      for (int first = 0; first < sequences[s].length; first += size)
        run(pool, {{s, first, std::min(size, sequences[s].length - first)}});
  }

  // Runs all sequences in one step, from an empty cache.
  void run_whole(ThreadPool& pool) {
    clear();
    std::vector<Chunk> chunks;
    for (int s = 0; s < static_cast<int>(sequences.size()); ++s) chunks.push_back({s, 0, sequences[s].length});
    run(pool, chunks);
  }

  std::vector<std::vector<float>> results() const {
    std::vector<std::vector<float>> all;
    for (const Sequence& s : sequences) all.push_back(s.out_SnW);
    return all;
  }
};

}  // namespace foe
