#include <algorithm>

#include "base/check.h"
#include "comm/shared_comm.h"

namespace foe {
namespace {

class SelfComm : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void broadcast(std::vector<std::int32_t>&) override { const Call call(*this, counters_.broadcast); }
  void ordered_sum(const SumPlan& plan, float* terms, std::size_t count) override {
    const Call call(*this, counters_.sum);
    plan.reduce_own(0, terms, count);
  }
  void gather(std::span<const float> send, std::span<const std::size_t>, float* out) override {
    const Call call(*this, counters_.gather);
    std::copy(send.begin(), send.end(), out);
  }
  void all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                  std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override {
    const Call call(*this, counters_.all_to_all);
    begin_all_to_all(send, send_bytes, receive_bytes);
    FOE_CHECK(send.size() <= receive.size(), "{} bytes to receive, room for {}", send.size(), receive.size());
    std::copy(send.begin(), send.end(), receive.begin());
    receive_bytes[0] = send_bytes[0];
  }
};

}  // namespace

std::unique_ptr<Communicator> make_self_comm() {
  return std::make_unique<SelfComm>();
}

std::vector<std::unique_ptr<Communicator>> make_local_comms(int size, double timeout_seconds) {
  auto memory =
      std::make_shared<AlignedBuffer<std::byte>>(AlignedBuffer<std::byte>::zeroed(SharedComm::memory_bytes(size)));
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank)
    ranks.push_back(std::make_unique<SharedComm>(rank, size, memory->data(), timeout_seconds, [memory] {}));
  return ranks;
}

}  // namespace foe
