#include <algorithm>
#include <map>
#include <mutex>

#include "base/check.h"
#include "comm/shared_comm.h"

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

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int>, int color) override {
    return color < 0 ? nullptr : make_self_comm();
  }
};

// What ranks that are threads of one process share.
struct LocalJob {
  explicit LocalJob(int ranks) : memory(AlignedBuffer<std::byte>::zeroed(SharedComm::memory_bytes(ranks))) {}

  AlignedBuffer<std::byte> memory;
  std::mutex mutex;
  std::map<std::pair<int, int>, std::shared_ptr<LocalJob>> parts;  // what was split off, by call and colour
};

class LocalComm : public SharedComm {
 public:
  LocalComm(int rank, int size, std::shared_ptr<LocalJob> job, double timeout_seconds)
      : SharedComm(rank, std::vector<int>(size), job->memory.data(), timeout_seconds, [job] {}),
        job_(std::move(job)),
        timeout_seconds_(timeout_seconds) {}

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int> members, int color) override {
    const int call = splits_++, size = static_cast<int>(members.size());
    if (color < 0) return nullptr;
    if (size == 1) return make_self_comm();
    const auto own = std::find(members.begin(), members.end(), rank()) - members.begin();
    const std::lock_guard lock(job_->mutex);
    std::shared_ptr<LocalJob>& part = job_->parts[{call, color}];
    if (!part) part = std::make_shared<LocalJob>(size);
    return std::make_unique<LocalComm>(static_cast<int>(own), size, part, timeout_seconds_);
  }

 private:
  std::shared_ptr<LocalJob> job_;
  double timeout_seconds_;
  int splits_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> make_self_comm() {
  return std::make_unique<SelfComm>();
}

std::vector<std::unique_ptr<Communicator>> make_local_comms(int size, double timeout_seconds) {
  const auto job = std::make_shared<LocalJob>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank)
    ranks.push_back(std::make_unique<LocalComm>(rank, size, job, timeout_seconds));
  return ranks;
}

}  // namespace foe
