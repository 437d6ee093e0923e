// Keeps account of the KV blocks of one cache: who uses each block, and which tokens' keys and values it holds. There
// are only ids and tokens here; the keys and values themselves are in model/kv_cache.h.
//
// A block has as many users as there are sequences with it in their tables. A block without users is free, but keeps
// its contents until it is allocated again. Free blocks without known contents are allocated first, then the least
// recently used one. Full blocks are found by their contents, which makes them the prefix cache. As keys and values
// depend on all tokens before them, the key of a block is the block before it and its own tokens; a first block has the
// salt of its request instead, so that requests with different salts share nothing. Lookups compare whole keys, so a
// collision of hashes cannot give a request the contents of another.
//
// A key stays valid because every user of a block also uses the block before it, and releases that one later. So a
// block is never allocated again while the block after it can still be found.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/batch.h"

namespace foe {

// One thread.
class BlockPool {
 public:
  using Tokens = std::span<const std::int32_t, kKvBlock>;
  static constexpr std::int32_t kNone = -1;
  // The block before: its id, or start() of a salt, whose lowest two bits do not count.
  using Parent = std::int64_t;
  static constexpr Parent start(std::uint64_t salt) { return salt == 0 ? kNone : -2 - static_cast<Parent>(salt >> 2); }

  explicit BlockPool(int blocks);

  int total() const { return static_cast<int>(blocks_.size()) - 1; }
  int available() const { return available_; }
  int in_use() const { return total() - available_; }
  bool used(std::int32_t block) const { return blocks_[block].users > 0; }

  // Returns a block with one user, whose old contents are forgotten. Requires available() > 0.
  std::int32_t allocate();
  // Adds a user.
  void retain(std::int32_t block);
  // Removes a user from each block of a sequence's table.
  void release(std::span<const std::int32_t> table);

  // Returns the block that holds these tokens after the block `parent`, or kNone.
  std::int32_t find(Parent parent, Tokens tokens) const;
  // Lets find() find a block by its contents, which are complete. Requires that the block has one user and is not known
  // yet. If another block already holds the same, this one is released, and its user becomes a user of the other.
  // Returns the block that the user has from now on.
  std::int32_t publish(std::int32_t block, Parent parent, Tokens tokens);

  // For tests and debugging. Aborts unless each block has `users[block]` users and all else here is consistent.
  void check(std::span<const int> users) const;

 private:
  struct Key {
    Parent parent = kNone;
    std::array<std::int32_t, kKvBlock> tokens = {};
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const;
  };
  struct Block {
    int users = 0;
    bool known = false;
    std::int32_t previous = kNone, next = kNone;  // in the list of free blocks
    Key key;                                      // valid if known
  };

  static Key make_key(Parent parent, Tokens tokens);
  void link_before(std::int32_t block, std::int32_t next);
  void unlink(std::int32_t block);
  void release(std::int32_t block);

  // The last element is not a block: it joins the ends of the list of free blocks. The list begins with the next block
  // to be allocated. Blocks without known contents come first, the last used one at the front; then those with known
  // contents, the least recently used one at the front.
  std::vector<Block> blocks_;
  int available_;
  std::unordered_map<Key, std::int32_t, Hash> known_;
};

}  // namespace foe
