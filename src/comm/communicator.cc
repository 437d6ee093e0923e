#include "comm/communicator.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace foe {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Communicator::Call::Call(const Communicator& comm, CommCounter& counter)
    : comm_(comm), counter_(counter), start_(Clock::now()), waited_before_(comm.waited_s_) {
  ++counter_.calls;
}

Communicator::Call::~Call() {
  counter_.seconds += std::chrono::duration<double>(Clock::now() - start_).count();
  counter_.waiting_s += comm_.waited_s_ - waited_before_;
}

std::unique_ptr<Communicator> Communicator::split(int color, int key) {
  struct Choice {
    int color, key, rank;
  };
  const CommCounters before = *counters_;
  const auto ranks = static_cast<std::size_t>(size());
  const std::vector<Choice> mine(ranks, Choice{color, key, rank()});
  std::vector<Choice> all(ranks);
  const std::vector<std::size_t> sent(ranks, sizeof(Choice));
  std::vector<std::size_t> received(ranks);
  all_to_all(std::as_bytes(std::span(mine)), sent, std::as_writable_bytes(std::span(all)), received);
  restore_counters(before);
  std::erase_if(all, [&](const Choice& c) { return c.color != color; });
  std::stable_sort(all.begin(), all.end(), [](const Choice& a, const Choice& b) { return a.key < b.key; });
  std::vector<int> members;
  for (const Choice& c : all) members.push_back(c.rank);
  std::unique_ptr<Communicator> part = make_part(members, color);
  if (color < 0) return nullptr;
  part->counters_ = counters_;
  return part;
}

void Communicator::begin_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                                    std::span<const std::size_t> receive_bytes) {
  const auto ranks = static_cast<std::size_t>(size());
  FOE_CHECK(send_bytes.size() == ranks && receive_bytes.size() == ranks, "{} and {} lengths for {} ranks",
            send_bytes.size(), receive_bytes.size(), ranks);
  const std::size_t announced = std::accumulate(send_bytes.begin(), send_bytes.end(), std::size_t{0});
  FOE_CHECK(send.size() == announced, "{} bytes, announced {}", send.size(), announced);
  counters_->all_to_all.messages += ranks - 1;
  counters_->all_to_all.bytes += announced - send_bytes[rank()];
}

}  // namespace foe
