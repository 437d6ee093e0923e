#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>

#include "base/check.h"
#include "base/clock.h"
#include "comm/nodes_comm.h"
#include "comm/rank_lost.h"

namespace foe {
namespace {

class SelfComm : public Communicator {
 public:
  SelfComm() : Communicator(0, {0}) {}

  void do_broadcast(std::vector<std::int32_t>&) override {}
  void do_sum(const SumPlan&, float*, std::size_t, Wire) override {}
  void do_gather(std::span<const std::byte> send, std::span<const std::size_t>, std::byte* out) override {
    std::copy(send.begin(), send.end(), out);
  }
  void do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                     std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override {
    FOE_CHECK(send.size() <= receive.size(), "{} bytes to receive, room for {}", send.size(), receive.size());
    std::copy(send.begin(), send.end(), receive.begin());
    receive_bytes[0] = send_bytes[0];
  }
  void do_send(int, std::vector<std::byte>) override {}  // nobody calls these: there is no peer
  void do_receive(int, std::size_t, std::vector<std::byte>&) override {}

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int>, int color) override {
    return color < 0 ? nullptr : make_self_comm();
  }
};

// What ranks that are threads of one process share.
struct LocalJob {
  explicit LocalJob(int ranks) : memory(SharedComm::memory_bytes(ranks)), gone(ranks) {
    SharedComm::clear(memory.data(), ranks);
  }

  AlignedBuffer<std::byte> memory;
  std::mutex mutex;
  std::condition_variable changed;                                         // `mail` or `gone`
  std::map<std::pair<int, int>, std::deque<std::vector<std::byte>>> mail;  // by sender and receiver
  std::vector<char> gone;                                                  // by rank: it was destroyed
  std::map<std::pair<int, int>, std::shared_ptr<LocalJob>> parts;  // the jobs that were split off, by call and colour
};

class LocalComm : public SharedComm {
 public:
  LocalComm(int rank, std::vector<int> nodes, std::shared_ptr<LocalJob> job, double timeout_seconds)
      : SharedComm(rank, std::move(nodes), job->memory.data(), timeout_seconds, [job] {}), job_(std::move(job)) {}

  ~LocalComm() override {
    {
      const std::lock_guard lock(job_->mutex);
      job_->gone[rank()] = true;
    }
    job_->changed.notify_all();
  }

  void do_send(int peer, std::vector<std::byte> message) override {
    {
      const std::lock_guard lock(job_->mutex);
      job_->mail[{rank(), peer}].push_back(std::move(message));
    }
    job_->changed.notify_all();
  }
  void do_receive(int peer, std::size_t bytes, std::vector<std::byte>& message) override;

  // Returns the job of the ranks that pass the same key, which they share with nobody else.
  std::shared_ptr<LocalJob> part(std::pair<int, int> key, int size) const {
    const std::lock_guard lock(job_->mutex);
    std::shared_ptr<LocalJob>& job = job_->parts[key];
    if (!job) job = std::make_shared<LocalJob>(size);
    return job;
  }

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int> part_ranks, int color) override;

 private:
  std::shared_ptr<LocalJob> job_;
  int splits_ = 0;
};

void LocalComm::do_receive(int peer, std::size_t bytes, std::vector<std::byte>& message) {
  const auto start = Clock::now();
  std::unique_lock lock(job_->mutex);
  auto& queue = job_->mail[{peer, rank()}];
  const bool heard = job_->changed.wait_for(lock, std::chrono::duration<double>(timeout()),
                                            [&] { return !queue.empty() || job_->gone[peer]; });
  counters_->waited_s += seconds_since(start);
  if (!heard) throw_silent(peer);
  if (queue.empty()) throw_gone(peer);
  message = std::move(queue.front());
  queue.pop_front();
  if (message.size() != bytes) refuse_message(peer, bytes, message.size());
}

// Makes a rank's communicator, which has two levels if there are several nodes.
std::unique_ptr<Communicator> make_local_comm(int rank, const std::vector<int>& nodes,
                                              const std::shared_ptr<LocalJob>& job, double timeout_seconds) {
  auto world = std::make_unique<LocalComm>(rank, nodes, job, timeout_seconds);
  std::optional<NodeGrid> grid = node_grid(nodes, rank);
  if (!grid) return world;
  const int node_ranks = grid->begin[grid->node + 1] - grid->begin[grid->node];
  const int node_count = static_cast<int>(grid->begin.size()) - 1;
  // These keys differ from those of all splits.
  auto inside = std::make_unique<LocalComm>(grid->place, std::vector<int>(node_ranks),
                                            world->part({-1, grid->node}, node_ranks), timeout_seconds);
  std::unique_ptr<LocalComm> between;
  if (grid->place < grid->fewest) {
    std::vector<int> each(node_count);
    std::iota(each.begin(), each.end(), 0);
    between =
        std::make_unique<LocalComm>(grid->node, each, world->part({-2, grid->place}, node_count), timeout_seconds);
  }
  return std::make_unique<NodesComm>(std::move(*grid), std::move(world), std::move(inside), std::move(between));
}

std::unique_ptr<Communicator> LocalComm::make_part(std::span<const int> part_ranks, int color) {
  const int call = splits_++;
  if (color < 0) return nullptr;
  if (part_ranks.size() == 1) return make_self_comm();
  const auto own = std::find(part_ranks.begin(), part_ranks.end(), rank()) - part_ranks.begin();
  std::map<int, int> numbers;  // new numbers of the nodes, in the order of the ranks
  std::vector<int> part_nodes;
  for (const int part_rank : part_ranks)
    part_nodes.push_back(numbers.emplace(nodes()[part_rank], static_cast<int>(numbers.size())).first->second);
  return make_local_comm(static_cast<int>(own), part_nodes, part({call, color}, static_cast<int>(part_ranks.size())),
                         timeout());
}

}  // namespace

std::unique_ptr<Communicator> make_self_comm() {
  return std::make_unique<SelfComm>();
}

std::vector<std::unique_ptr<Communicator>> make_local_comms(int size, double timeout_seconds) {
  return make_local_comms(std::vector<int>(size), timeout_seconds);
}

std::vector<std::unique_ptr<Communicator>> make_local_comms(const std::vector<int>& nodes, double timeout_seconds) {
  const auto job = std::make_shared<LocalJob>(static_cast<int>(nodes.size()));
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (std::size_t rank = 0; rank < nodes.size(); ++rank)
    ranks.push_back(make_local_comm(static_cast<int>(rank), nodes, job, timeout_seconds));
  return ranks;
}

}  // namespace foe
