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
// A sequence with all of its queries, keys and values, and the results of the queries that have run.
struct Sequence {
  int length;
  std::vector<float> q_SnC, k_SmC, v_SmC, out_SnC;
  std::vector<std::int32_t> blocks;
};

// The KV cache of one layer, and sequences whose blocks are in it in random order. The cache starts as NaN (also the
// scales of int8), so that reading anything that was not written shows in the results.
struct Layer {
  Heads heads;
  KvShape shape;
  std::vector<Sequence> sequences;
  std::vector<std::byte> kv;

  Layer(Heads heads_, int head_dim, Types types, const std::vector<int>& lengths, std::uint64_t seed)
      : heads(heads_), shape{heads_.kv, head_dim, types.kv, types.attention} {
    const std::size_t n = heads.query * head_dim, m = heads.kv * head_dim;
    std::vector<std::int32_t> free;
    for (const int length : lengths) {
      ++seed;
      sequences.push_back({length,
                           random_values(length * n, seed),
                           random_values(length * m, seed + 1000),
                           random_values(length * m, seed + 2000),
                           std::vector<float>(length * n),
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

  void clear() { std::fill(kv.begin(), kv.end(), std::byte{0xff}); }

  // `count` tokens of a sequence, from token `first` on.
  struct Chunk {
    int sequence;
    int first;
    int count;
  };

  // Runs one step over some chunks: writes their keys and values, and then computes attention for their queries.
  void run(ThreadPool& pool, const std::vector<Chunk>& chunks) {
    const std::size_t n = heads.query * shape.head_dim, m = heads.kv * shape.head_dim;
    Batch batch;
    std::vector<float> q_TnC, k_TmC, v_TmC;
    const auto append = [](std::vector<float>& to, const std::vector<float>& from, std::size_t width, const Chunk& c) {
      to.insert(to.end(), from.begin() + c.first * width, from.begin() + (c.first + c.count) * width);
    };
    for (const Chunk& c : chunks) {
      const Sequence& s = sequences[c.sequence];
      batch.add_sequence(std::vector<std::int32_t>(c.count), c.first, s.blocks, Batch::Sample::kNone);
      append(q_TnC, s.q_SnC, n, c);
      append(k_TmC, s.k_SmC, m, c);
      append(v_TmC, s.v_SmC, m, c);
    }
    std::vector<float> out_TnC(q_TnC.size());
    write_kv(pool, batch, shape, k_TmC.data(), v_TmC.data(), kv.data());
    attention(pool, batch, shape, heads.query, q_TnC.data(), kv.data(), out_TnC.data());
    const float* out = out_TnC.data();
    for (const Chunk& c : chunks) {
      std::copy(out, out + c.count * n, sequences[c.sequence].out_SnC.begin() + c.first * n);
      out += c.count * n;
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
    for (const Sequence& s : sequences) all.push_back(s.out_SnC);
    return all;
  }
};

}  // namespace foe
