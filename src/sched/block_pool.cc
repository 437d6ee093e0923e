#include "sched/block_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/rng.h"

namespace foe {

std::size_t BlockPool::Hash::operator()(const Key& key) const {
  const auto word = [](std::int32_t v) { return static_cast<std::uint64_t>(static_cast<std::uint32_t>(v)); };
  auto hash = static_cast<std::uint64_t>(key.parent);
  for (int i = 0; i < kKvBlock; i += 2) hash = random_bits(hash, word(key.tokens[i]) << 32 | word(key.tokens[i + 1]));
  return hash;
}

BlockPool::Key BlockPool::make_key(Parent parent, Tokens tokens) {
  Key key{.parent = parent};
  std::copy(tokens.begin(), tokens.end(), key.tokens.begin());
  return key;
}

BlockPool::BlockPool(int blocks) : blocks_(blocks + 1), available_(blocks) {
  blocks_.back().previous = blocks_.back().next = blocks;
  for (std::int32_t id = 0; id < blocks; ++id) link_before(id, blocks);
}

void BlockPool::link_before(std::int32_t block, std::int32_t next) {
  const std::int32_t previous = blocks_[next].previous;
  blocks_[block].previous = previous;
  blocks_[block].next = next;
  blocks_[previous].next = blocks_[next].previous = block;
}

void BlockPool::unlink(std::int32_t block) {
  blocks_[blocks_[block].previous].next = blocks_[block].next;
  blocks_[blocks_[block].next].previous = blocks_[block].previous;
}

std::int32_t BlockPool::allocate() {
  FOE_CHECK(available_ > 0, "all {} blocks are in use", total());
  const std::int32_t id = blocks_.back().next;
  if (std::exchange(blocks_[id].known, false)) known_.erase(blocks_[id].key);
  retain(id);
  return id;
}

void BlockPool::retain(std::int32_t block) {
  if (blocks_[block].users++ > 0) return;
  unlink(block);
  --available_;
}

void BlockPool::release(std::int32_t block) {
  FOE_CHECK(used(block), "block {} is free already", block);
  if (--blocks_[block].users > 0) return;
  link_before(block, blocks_[block].known ? total() : blocks_.back().next);
  ++available_;
}

// The last block of the table is released first, so that it is allocated again before those in front of it: fewer
// requests can use it.
void BlockPool::release(std::span<const std::int32_t> table) {
  for (auto id = table.rbegin(); id != table.rend(); ++id) release(*id);
}

std::int32_t BlockPool::find(Parent parent, Tokens tokens) const {
  const auto it = known_.find(make_key(parent, tokens));
  return it == known_.end() ? kNone : it->second;
}

std::int32_t BlockPool::publish(std::int32_t block, Parent parent, Tokens tokens) {
  Block& b = blocks_[block];
  FOE_CHECK(b.users == 1 && !b.known, "block {} has {} users and {} contents", block, b.users,
            b.known ? "known" : "no");
  const auto [it, added] = known_.try_emplace(make_key(parent, tokens), block);
  if (added) {
    b.known = true;
    b.key = it->first;
  } else {
    release(block);
    retain(it->second);
  }
  return it->second;
}

void BlockPool::check(std::span<const int> users) const {
  FOE_CHECK(static_cast<int>(users.size()) == total(), "{} counts for {} blocks", users.size(), total());
  std::vector<int> place(total(), 0);  // of each block in the list of free blocks, counted from 1; 0: not in it
  int free = 0;
  for (std::int32_t id = blocks_.back().next; id != total(); id = blocks_[id].next) {
    FOE_CHECK(free < available_ && place[id] == 0, "block {} is twice in the list of {} free ones", id, available_);
    FOE_CHECK(blocks_[blocks_[id].next].previous == id, "block {} is not before {}", id, blocks_[id].next);
    place[id] = ++free;
  }
  FOE_CHECK(free == available_, "{} free blocks of {} in the list", free, available_);
  std::size_t known = 0;
  for (std::int32_t id = 0; id < total(); ++id) {
    const Block& b = blocks_[id];
    FOE_CHECK(b.users == users[id], "block {} counts {} users of {}", id, b.users, users[id]);
    FOE_CHECK((b.users == 0) == (place[id] > 0), "block {} with {} users is {} in the list", id, b.users, place[id]);
    if (!b.known) continue;
    ++known;
    const auto it = known_.find(b.key);
    FOE_CHECK(it != known_.end() && it->second == id, "block {} is not found by its contents", id);
    if (b.key.parent < 0) continue;  // it starts a sequence
    const Block& parent = blocks_[b.key.parent];
    FOE_CHECK(parent.known && parent.users >= b.users, "block {} with {} users is behind block {} with {}", id, b.users,
              b.key.parent, parent.users);
    FOE_CHECK(parent.users > 0 || place[b.key.parent] > place[id], "block {} is taken before {}, which is behind it",
              b.key.parent, id);
  }
  FOE_CHECK(known == known_.size(), "{} known blocks, {} found by contents", known, known_.size());
}

}  // namespace foe
