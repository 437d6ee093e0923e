// The exchange of a layer's keys and values between members that split sequences (Placement::split_sequences): each
// sends those of the rows that it runs to all others, so that all write the same KV blocks, and each can attend to
// every position.
//
// Shape letters: T tokens, m local KV heads, C width of a key, W of a value.
#pragma once

#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "core/batch.h"
#include "kernels/formats/kv_format.h"

namespace foe {

struct KeyExchange {
  int member;
  // The current exchange: rows of [m C] and [m W] encoded floats, in the encoding of KvShape::wire(). What is sent has
  // one copy for each member, itself included.
  AlignedBuffer<std::byte> out, in;  // as large as the largest step so far needs
  std::size_t bytes_out = 0;
  std::vector<std::size_t> bytes_to, bytes_from;  // by member

  KeyExchange(int own_member, int members) : member(own_member), bytes_to(members), bytes_from(members) {}
  std::size_t bytes() const { return out.size() + in.size(); }
};

// A layer calls these functions in this order. Only exchange_keys() communicates; it may run on another thread while
// nobody uses `exchange`.

// Writes the messages with k_TmC and v_TmW, those of this member's rows. `all` has the rows of all members, in their
// order.
void pack_keys(KeyExchange& exchange, ThreadPool& pool, const KvShape& shape, const Batch& all, const float* k_TmC,
               const float* v_TmW);
// Collective. Sends the messages that were packed, and receives those of the other members.
void exchange_keys(KeyExchange& exchange, Communicator& comm);
// Reads what has arrived: k_TmC and v_TmW of `all`. Throws Error if it is not what members with this batch can send.
void take_keys(KeyExchange& exchange, ThreadPool& pool, const KvShape& shape, const Batch& all, float* k_TmC,
               float* v_TmW);

}  // namespace foe
