// Who uses which KV block of one cache, and what stands in it: ids and tokens only, the floats are model/kv_cache.h's.
//
// A block has as many users as sequences have it in their tables. One without users is free, but keeps its contents
// until it is taken for others, the least recently used first. Full blocks are found by their contents: KV depends on
// the tokens before it too, so a block's key is the block before it and its own tokens. Keys are compared, not only
// their hashes: no collision can give a request the KV of another.
//
// A key stays true because every user of a block uses the block before it, and gives it back later (release): a block
// is never taken for others while one behind it is still known.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/batch.h"

namespace foe {

class BlockPool {
 public:
  using Tokens = std::span<const std::int32_t, kKvBlock>;
  static constexpr std::int32_t kNone = -1;

  explicit BlockPool(int blocks);

  int total() const { return static_cast<int>(blocks_.size()) - 1; }
  int available() const { return available_; }
  int in_use() const { return total() - available_; }
  bool used(std::int32_t block) const { return blocks_[block].users > 0; }

  // A block for one user; one must be available. Its contents are forgotten.
  std::int32_t allocate();
  // One more user.
  void retain(std::int32_t block);
  // One user less for each block of a sequence's table.
  void release(std::span<const std::int32_t> table);

  // The block that holds these tokens behind `parent` (kNone: at the start of a sequence), or kNone.
  std::int32_t find(std::int32_t parent, Tokens tokens) const;
  // Makes a block known by what it now holds. If another holds the same, the user goes over to that one. Returns the
  // block that it uses from now on.
  std::int32_t publish(std::int32_t block, std::int32_t parent, Tokens tokens);

  // Aborts unless each block has `users[block]` users and everything here agrees with that.
  void check(std::span<const int> users) const;

 private:
  struct Key {
    std::int32_t parent = kNone;
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
    Key key;                                      // if known
  };

  static Key make_key(std::int32_t parent, Tokens tokens);
  void link_before(std::int32_t block, std::int32_t next);
  void unlink(std::int32_t block);
  void release(std::int32_t block);

  // The last one is no block but joins the ends of the list of free ones, which begins with the next to be taken: those
  // without known contents, the last used first, then the others, the least recently used first.
  std::vector<Block> blocks_;
  int available_;
  std::unordered_map<Key, std::int32_t, Hash> known_;
};

}  // namespace foe
