#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mpi.h>
#include <numeric>
#include <sched.h>
#include <thread>
#include <unistd.h>

#include "base/check.h"
#include "base/error.h"
#include "comm/shared_comm.h"

namespace foe {
namespace {

void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail("{}: {}", call, std::string(text, length));
}

// MPI_Finalize waits for all ranks. A rank that fails must not: whoever catches its Error calls abort_world().
void finalize() {
  if (std::uncaught_exceptions() == 0) MPI_Finalize();
}

std::vector<int> nodes_of(MPI_Comm comm, const WorldOptions& options) {
  int rank = 0, size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  int first = rank;  // of its node: stands for it
  if (options.share_memory) {
    MPI_Comm node;
    check_mpi(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node), "MPI_Comm_split_type");
    check_mpi(MPI_Bcast(&first, 1, MPI_INT, 0, node), "MPI_Bcast");
    MPI_Comm_free(&node);
  }
  std::vector<int> firsts(size), nodes(size);
  check_mpi(MPI_Allgather(&first, 1, MPI_INT, firsts.data(), 1, MPI_INT, comm), "MPI_Allgather");
  for (int r = 0, next = 0; r < size; ++r) nodes[r] = firsts[r] == r ? next++ : nodes[firsts[r]];
  return nodes;
}

std::unique_ptr<Communicator> make_part_of(MPI_Comm comm, std::span<const int> members, int color,
                                           const WorldOptions& options);

// Ranks on several nodes: MPI moves the bytes, the sums are ours.
class MpiComm : public Communicator {
 public:
  // `on_destroy` runs last in the destructor.
  MpiComm(MPI_Comm comm, std::vector<int> nodes, const WorldOptions& options, std::function<void()> on_destroy)
      : comm_(comm), nodes_(std::move(nodes)), options_(options), on_destroy_(std::move(on_destroy)) {
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    for (auto* each : {&send_counts_, &send_at_, &receive_counts_, &receive_at_}) each->resize(size_);
    messages_.resize(size_);
    requests_.resize(2 * (size_ - 1));
  }
  ~MpiComm() override {
    if (on_destroy_) on_destroy_();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::vector<int> nodes() const override { return nodes_; }

  void broadcast(std::vector<std::int32_t>& message) override {
    const Call call(*this, counters_->broadcast);
    // The head carries the length and, for a decode step, all of the message: one exchange.
    constexpr int kHead = 1024;
    std::int32_t head[kHead] = {static_cast<std::int32_t>(message.size())};
    if (rank_ == 0) std::copy_n(message.data(), std::min<std::size_t>(message.size(), kHead - 1), head + 1);
    MPI_Request request;
    check_mpi(MPI_Ibcast(head, kHead, MPI_INT32_T, 0, comm_, &request), "MPI_Ibcast");
    wait(request, "a broadcast");
    const int first = std::min(head[0], kHead - 1), rest = head[0] - first;
    if (rank_ != 0) {
      message.resize(head[0]);
      std::copy_n(head + 1, first, message.data());
    }
    if (rest > 0) {
      check_mpi(MPI_Ibcast(message.data() + first, rest, MPI_INT32_T, 0, comm_, &request), "MPI_Ibcast");
      wait(request, "a broadcast");
    }
    if (rank_ == 0) {
      counters_->broadcast.messages += (size_ - 1) * (rest > 0 ? 2 : 1);
      counters_->broadcast.bytes += (size_ - 1) * (sizeof head + rest * sizeof(std::int32_t));
    }
  }

  void ordered_sum(const SumPlan& plan, float* terms, std::size_t count) override {
    const Call call(*this, counters_->sum);
    FOE_CHECK(plan.ranks() == size_, "a plan for {} ranks on {}", plan.ranks(), size_);
    plan.reduce_own(rank_, terms, count);
    if (count == 0) return;
    FOE_CHECK(count * std::max(1, plan.total_partials()) <= std::size_t{1} << 30, "a sum of {} floats", count);
    sums_in_slices(size_, count) ? sum_slices(plan, terms, count) : sum_whole(plan, terms, count);
  }

  void gather(std::span<const float> send, std::span<const std::size_t> counts, float* out) override {
    const Call call(*this, counters_->gather);
    FOE_CHECK(send.size() == counts[rank_], "{} floats, announced {}", send.size(), counts[rank_]);
    std::size_t total = 0;
    for (int peer = 0; peer < size_; total += counts[peer++]) {
      FOE_CHECK(total + counts[peer] < kMostItems, "{} floats gathered", total + counts[peer]);
      receive_at_[peer] = static_cast<int>(total);
      receive_counts_[peer] = static_cast<int>(counts[peer]);
    }
    MPI_Request request;
    check_mpi(MPI_Igatherv(send.data(), static_cast<int>(send.size()), MPI_FLOAT, out, receive_counts_.data(),
                           receive_at_.data(), MPI_FLOAT, 0, comm_, &request),
              "MPI_Igatherv");
    wait(request, "a gather");
    if (rank_ != 0) {
      ++counters_->gather.messages;
      counters_->gather.bytes += send.size_bytes();
    }
  }

  // One message to each other rank, which brings its length with it. Messages between two ranks do not overtake each
  // other and each call receives one from everyone, so calls cannot be mixed up.
  void all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                  std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override {
    const Call call(*this, counters_->all_to_all);
    begin_all_to_all(send, send_bytes, receive_bytes);
    receive_bytes[rank_] = send_bytes[rank_];
    const std::size_t own_at = std::accumulate(send_bytes.begin(), send_bytes.begin() + rank_, std::size_t{0});
    const auto own = send.subspan(own_at, send_bytes[rank_]);
    MPI_Request* request = start_sends(send, send_bytes, own_at);
    // A message has its place, and is received there, once it and those of all ranks before it have been announced.
    std::fill(messages_.begin(), messages_.end(), MPI_MESSAGE_NULL);
    int placed = 0;
    std::size_t at = 0;
    wait_until("an all-to-all", [&] {
      for (int peer = placed; peer < size_; ++peer)
        if (peer != rank_ && messages_[peer] == MPI_MESSAGE_NULL) probe(peer, receive_bytes[peer]);
      for (; placed < size_ && (placed == rank_ || messages_[placed] != MPI_MESSAGE_NULL); ++placed) {
        const std::size_t bytes = receive_bytes[placed];
        FOE_CHECK(bytes <= receive.size() - at, "{} bytes to receive, room for {}", at + bytes, receive.size());
        if (placed == rank_)
          std::copy(own.begin(), own.end(), receive.data() + at);
        else
          check_mpi(MPI_Imrecv(receive.data() + at, static_cast<int>(bytes), MPI_BYTE, &messages_[placed], request++),
                    "MPI_Imrecv");
        at += bytes;
      }
      int done = 0;
      if (placed == size_)
        check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
                  "MPI_Testall");
      return done != 0;
    });
  }

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int> members, int color) override {
    return make_part_of(comm_, members, color, options_);
  }

 private:
  static constexpr std::size_t kMostItems = std::size_t{1} << 31;  // MPI counts in int
  static constexpr int kAllToAllTag = 1;                           // nothing else is sent from rank to rank

  // Every rank receives all partials and adds them in the plan's order.
  void sum_whole(const SumPlan& plan, float* terms, std::size_t count) {
    const int own = plan.partials(rank_);
    receive_.resize(plan.total_partials() * count);
    for (int peer = 0; peer < size_; ++peer) {
      receive_counts_[peer] = static_cast<int>(plan.partials(peer) * count);
      receive_at_[peer] = static_cast<int>(plan.first_partial(peer) * count);
    }
    MPI_Request request;
    check_mpi(MPI_Iallgatherv(terms, receive_counts_[rank_], MPI_FLOAT, receive_.data(), receive_counts_.data(),
                              receive_at_.data(), MPI_FLOAT, comm_, &request),
              "MPI_Iallgatherv");
    wait(request, "a sum");
    reduce_received(plan, count, terms);
    counters_->sum.messages += size_ - 1;
    counters_->sum.bytes += (size_ - 1) * own * count * sizeof(float);
  }

  // Every rank receives its slice of all partials, adds them in the plan's order, and all gather the slices.
  void sum_slices(const SumPlan& plan, float* terms, std::size_t count) {
    const int own = plan.partials(rank_);
    const auto begin = [&](int r) { return static_cast<int>(count * r / size_); };
    const auto slice = [&](int r) { return begin(r + 1) - begin(r); };
    const int size = slice(rank_);

    send_.resize(own * count);
    receive_.resize(static_cast<std::size_t>(plan.total_partials()) * size);
    for (int peer = 0, at = 0; peer < size_; ++peer) {
      send_counts_[peer] = own * slice(peer);
      send_at_[peer] = at;
      for (int i = 0; i < own; ++i, at += slice(peer))
        std::copy_n(terms + i * count + begin(peer), slice(peer), send_.data() + at);
      receive_counts_[peer] = plan.partials(peer) * size;
      receive_at_[peer] = plan.first_partial(peer) * size;
    }
    MPI_Request request;
    check_mpi(MPI_Ialltoallv(send_.data(), send_counts_.data(), send_at_.data(), MPI_FLOAT, receive_.data(),
                             receive_counts_.data(), receive_at_.data(), MPI_FLOAT, comm_, &request),
              "MPI_Ialltoallv");
    wait(request, "a sum");
    reduce_received(plan, size, terms + begin(rank_));

    for (int peer = 0; peer < size_; ++peer) {
      receive_counts_[peer] = slice(peer);
      receive_at_[peer] = begin(peer);
    }
    check_mpi(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, terms, receive_counts_.data(), receive_at_.data(), MPI_FLOAT,
                              comm_, &request),
              "MPI_Iallgatherv");
    wait(request, "a sum");
    counters_->sum.messages += 2 * (size_ - 1);
    counters_->sum.bytes += ((count - size) * own + static_cast<std::size_t>(size) * (size_ - 1)) * sizeof(float);
  }

  // out = the sum of the partials in receive_, `count` floats each.
  void reduce_received(const SumPlan& plan, std::size_t count, float* out) {
    partials_.clear();
    for (int i = 0; i < plan.total_partials(); ++i) partials_.push_back(receive_.data() + i * count);
    plan.reduce_partials(partials_, count, out);
  }

  // Sends to the others, the next rank first and around, so that not all begin with rank 0. Returns the end of the
  // requests made.
  MPI_Request* start_sends(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                           std::size_t own_at) {
    MPI_Request* request = requests_.data();
    std::size_t at = own_at + send_bytes[rank_];
    for (int i = 1; i < size_; ++i, ++request) {
      const int peer = (rank_ + i) % size_;
      if (peer == 0) at = 0;
      FOE_CHECK(send_bytes[peer] < kMostItems, "a message of {} bytes", send_bytes[peer]);
      check_mpi(
          MPI_Isend(send.data() + at, static_cast<int>(send_bytes[peer]), MPI_BYTE, peer, kAllToAllTag, comm_, request),
          "MPI_Isend");
      at += send_bytes[peer];
    }
    return request;
  }

  // Looks for the next message from `peer`; if there is one, messages_[peer] is it, of this length.
  void probe(int peer, std::size_t& bytes) {
    int found = 0, count = 0;
    MPI_Status status;
    check_mpi(MPI_Improbe(peer, kAllToAllTag, comm_, &found, &messages_[peer], &status), "MPI_Improbe");
    if (!found) return;
    MPI_Get_count(&status, MPI_BYTE, &count);
    bytes = static_cast<std::size_t>(count);
  }

  void wait(MPI_Request& request, const char* what) {
    wait_until(what, [&] {
      int done = 0;
      check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      return done != 0;
    });
  }

  // Spins a little, then yields, then naps: a rank that waits for work must not take a core from one that has some.
  template <typename Ready>
  void wait_until(const char* what, Ready&& ready) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    for (int tries = 0; !ready(); ++tries) {
      if (tries < 100) continue;
      const double waited = std::chrono::duration<double>(Clock::now() - start).count();
      if (waited > options_.timeout_seconds)
        fail("rank {}: {} did not end within {} s: another rank died, or its host is cut off", rank_, what,
             options_.timeout_seconds);
      if (waited < 0.05)
        sched_yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(waited < 1 ? 100 : 1000));
    }
  }

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> nodes_;
  WorldOptions options_;
  std::function<void()> on_destroy_;
  std::vector<float> send_, receive_;  // grow to the largest sum
  std::vector<const float*> partials_;
  std::vector<int> send_counts_, send_at_, receive_counts_, receive_at_;  // by rank
  std::vector<MPI_Message> messages_;                                     // of an all-to-all, by rank
  std::vector<MPI_Request> requests_;                                     // its sends and its receptions
};

class NodeComm : public SharedComm {
 public:
  NodeComm(MPI_Comm node, int rank, int size, std::byte* memory, const WorldOptions& options,
           std::function<void()> on_destroy)
      : SharedComm(rank, size, memory, options.timeout_seconds, std::move(on_destroy)),
        node_(node),
        options_(options) {}

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int> members, int color) override {
    return make_part_of(node_, members, color, options_);
  }

 private:
  MPI_Comm node_;
  WorldOptions options_;
};

std::unique_ptr<Communicator> make_node_comm(MPI_Comm node, const WorldOptions& options,
                                             std::function<void()> on_destroy) {
  int rank = 0, size = 0;
  MPI_Comm_rank(node, &rank);
  MPI_Comm_size(node, &size);
  MPI_Win window;
  void* mine = nullptr;
  // Rank 0 holds all of it: one contiguous piece, as the threads of one process have. MPI need not align it (Open MPI
  // does not); pages are mapped whole, so the first aligned byte is the same one for every rank.
  constexpr std::size_t kAlignment = AlignedBuffer<std::byte>::kAlignment;
  const std::size_t bytes = SharedComm::memory_bytes(size);
  std::size_t room = bytes + kAlignment;
  check_mpi(
      MPI_Win_allocate_shared(rank == 0 ? static_cast<MPI_Aint>(room) : 0, 1, MPI_INFO_NULL, node, &mine, &window),
      "MPI_Win_allocate_shared");
  MPI_Aint size_of_rank0 = 0;
  int unit = 0;
  void* memory = nullptr;
  MPI_Win_shared_query(window, 0, &size_of_rank0, &unit, &memory);
  std::align(kAlignment, bytes, memory, room);
  if (rank == 0) std::memset(memory, 0, bytes);
  MPI_Barrier(node);
  // The window is not freed by hand: that is collective, and a rank that fails leaves alone. MPI_Finalize releases it.
  return std::make_unique<NodeComm>(node, rank, size, static_cast<std::byte*>(memory), options, std::move(on_destroy));
}

std::unique_ptr<Communicator> make_comm(MPI_Comm comm, const WorldOptions& options, std::function<void()> on_destroy) {
  std::vector<int> nodes = nodes_of(comm, options);
  if (options.share_memory && *std::max_element(nodes.begin(), nodes.end()) == 0)
    return make_node_comm(comm, options, std::move(on_destroy));
  return std::make_unique<MpiComm>(comm, std::move(nodes), options, std::move(on_destroy));
}

// What is split off stays until MPI_Finalize: freeing it is collective, and a rank that fails leaves alone.
std::unique_ptr<Communicator> make_part_of(MPI_Comm comm, std::span<const int> members, int color,
                                           const WorldOptions& options) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  const auto own = std::find(members.begin(), members.end(), rank) - members.begin();
  MPI_Comm part;
  check_mpi(MPI_Comm_split(comm, color < 0 ? MPI_UNDEFINED : color, static_cast<int>(own), &part), "MPI_Comm_split");
  if (color < 0) return nullptr;
  if (members.size() == 1) return make_self_comm();
  return make_comm(part, options, {});
}

bool started_by_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMI_SIZE") || std::getenv("PMIX_RANK");
}

}  // namespace

std::unique_ptr<Communicator> make_world_comm(const WorldOptions& options) {
  if (!started_by_mpirun()) return make_self_comm();
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  return make_comm(MPI_COMM_WORLD, options, finalize);
}

void abort_world(int status) {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (initialised && !finalised) MPI_Abort(MPI_COMM_WORLD, status);
}

}  // namespace foe
