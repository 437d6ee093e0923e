#include "model/key_exchange.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace foe {
namespace {

// Returns how many of the batch's rows each member runs.
std::vector<int> rows_by_owner(const Batch& batch, std::size_t members) {
  std::vector<int> rows(members);
  for (int s = 0; s < batch.num_sequences(); ++s)
    rows[batch.sequence_owner[s]] += batch.sequence_begin[s + 1] - batch.sequence_begin[s];
  return rows;
}

void make_room(AlignedBuffer<std::byte>& buffer, std::size_t bytes) {
  if (buffer.size() < bytes) buffer = AlignedBuffer<std::byte>(bytes);
}

}  // namespace

void pack_keys(KeyExchange& x, ThreadPool& pool, const KvShape& shape, const Batch& all, const float* k_TmC,
               const float* v_TmW) {
  const std::size_t members = x.bytes_to.size(), row_bytes = shape.position_wire_bytes();
  const std::size_t k = static_cast<std::size_t>(shape.kv_heads) * shape.key_width;
  const std::size_t v = static_cast<std::size_t>(shape.kv_heads) * shape.value_width;
  const int rows = rows_by_owner(all, members)[x.member];
  std::ranges::fill(x.bytes_to, rows * row_bytes);
  x.bytes_out = members * rows * row_bytes;
  make_room(x.out, x.bytes_out);
  make_room(x.in, all.num_tokens() * row_bytes);
  pool.parallel_for(rows, [&](std::size_t t) {
    std::byte* row = x.out.data() + t * row_bytes;
    encode(shape.wire(), k_TmC + t * k, k, row);
    encode(shape.wire(), v_TmW + t * v, v, row + shape.key_wire_bytes());
    for (std::size_t m = 1; m < members; ++m) std::memcpy(row + m * rows * row_bytes, row, row_bytes);
  });
}

void exchange_keys(KeyExchange& x, Communicator& comm) {
  comm.all_to_all(x.out.span().first(x.bytes_out), x.bytes_to, x.in.span(), x.bytes_from);
}

void take_keys(KeyExchange& x, ThreadPool& pool, const KvShape& shape, const Batch& all, float* k_TmC, float* v_TmW) {
  const std::size_t row_bytes = shape.position_wire_bytes();
  const std::size_t k = static_cast<std::size_t>(shape.kv_heads) * shape.key_width;
  const std::size_t v = static_cast<std::size_t>(shape.kv_heads) * shape.value_width;
  const std::vector<int> rows = rows_by_owner(all, x.bytes_from.size());
  for (std::size_t m = 0; m < rows.size(); ++m)
    if (x.bytes_from[m] != rows[m] * row_bytes)
      fail("rank {}: expected {} bytes of keys and values from rank {}, for {} rows, got {}", x.member,
           rows[m] * row_bytes, m, rows[m], x.bytes_from[m]);
  pool.parallel_for(all.num_tokens(), [&](std::size_t t) {
    const std::byte* row = x.in.data() + t * row_bytes;
    decode(shape.wire(), row, k, k_TmC + t * k);
    decode(shape.wire(), row + shape.key_wire_bytes(), v, v_TmW + t * v);
  });
}

}  // namespace foe
