#include "train/set_peers.h"

#include <algorithm>
#include <cstring>

namespace foe::train {

class SetPeers::Shard final : public GroupPeers {
 public:
  Shard(SetPeers& set, const Split& split, int index, int owner)
      : GroupPeers(split.over_streams(), set.set_->rank(), owner), set_(set), comm_(*set.set_), index_(index) {}

  void sum(float* partials, std::size_t count) override {
    in_turn([&] { comm_.sum_partials(plan(), partials, count); });
  }

  void sum_at_owner(float* partials, std::size_t count) override {
    in_turn([&] {
      std::vector<std::size_t> bytes(comm_.size());
      const std::size_t own = plan().partials(rank()) * count, all = plan().total_partials() * count;
      bytes[owner()] = own * sizeof(float);
      const std::span<float> received = room(owns_ends() ? all : 0);
      exchange(std::as_bytes(std::span(partials, own)), bytes, std::as_writable_bytes(received));
      if (!owns_ends()) return;
      std::vector<const float*> terms;
      for (int i = 0; i < plan().total_partials(); ++i) terms.push_back(received.data() + i * count);
      plan().reduce_partials(terms, count, partials);
    });
  }

  void spread(std::span<float> values) override {
    in_turn([&] {
      const std::size_t peers = owns_ends() ? comm_.size() - 1 : 0;
      std::vector<std::size_t> bytes(comm_.size());
      const std::span<float> copies = room(peers * values.size());
      for (std::size_t i = 0; i < peers; ++i)
        std::copy(values.begin(), values.end(), copies.begin() + i * values.size());
      for (int r = 0; owns_ends() && r < comm_.size(); ++r) bytes[r] = r == rank() ? 0 : values.size_bytes();
      exchange(std::as_bytes(copies), bytes, std::as_writable_bytes(owns_ends() ? std::span<float>{} : values));
    });
  }

  void gather(std::span<const std::byte> own, std::span<std::byte> all) override {
    in_turn([&] {
      std::vector<std::byte> copies;
      for (int r = 0; r < comm_.size(); ++r) copies.insert(copies.end(), own.begin(), own.end());
      exchange(copies, std::vector(comm_.size(), own.size()), all);
    });
  }

 private:
  void in_turn(const std::function<void()>& exchange) { set_.turns_->exchange(index_, exchange); }

  void exchange(std::span<const std::byte> send, const std::vector<std::size_t>& bytes, std::span<std::byte> receive) {
    std::vector<std::size_t> received(comm_.size());
    comm_.all_to_all(send, bytes, receive, received);
  }

  std::span<float> room(std::size_t floats) {
    if (set_.scratch_.size() < floats) set_.scratch_.resize(floats);
    return std::span(set_.scratch_).first(floats);
  }

  SetPeers& set_;
  Communicator& comm_;
  int index_;
};

SetPeers::SetPeers(const Split& split, Communicator& world, int threads) : shards_(split.shards(world.rank()).size()) {
  if (split.group_ranks() == 1) return;
  if (split.sets() > 1) part_ = world.split(split.set_of(world.rank()), split.place_of(world.rank()));
  set_ = part_ ? part_.get() : &world;
  turns_.emplace(static_cast<int>(shards_), threads);
  const int first = split.shards(world.rank()).begin;
  for (int i = 0; i < static_cast<int>(shards_); ++i)
    peers_.push_back(std::make_unique<Shard>(*this, split, i, split.place_with_ends(first + i)));
}

SetPeers::~SetPeers() = default;

GroupPeers* SetPeers::of_shard(std::size_t i) const {
  return set_ ? peers_[i].get() : nullptr;
}

void SetPeers::run(ThreadPool& pool, const std::function<void(std::size_t)>& body) {
  if (!set_) return pool.parallel_for(shards_, body);
  turns_->run([&](int i) { body(static_cast<std::size_t>(i)); });
}

}  // namespace foe::train
