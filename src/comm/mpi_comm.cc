#include "comm/mpi_comm.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "comm/mpi_wait.h"

namespace foe {
namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 31;  // MPI counts in int
// The tags of the messages of all-to-alls: a whole message, or its length and then its pieces. (mpi_messages.cc has
// another one.)
constexpr int kMessageTag = 1, kLengthTag = 2, kPieceTag = 3;
constexpr std::size_t kPieceBytes = std::size_t{1} << 18;
constexpr std::size_t kSumPiece = 1024 * kWireBlock;  // floats of a piece of a sum that is not done in slices

// Whether an exchange has failed in this process. MPI still has its requests, which cannot be cancelled safely, and the
// memory that they read and write is freed while the Error propagates. So nothing may call MPI again except
// abort_world().
std::atomic<bool> requests_are_left = false;

int to_int(std::size_t bytes) {
  FOE_CHECK(bytes < kMostBytes, "{} bytes in one exchange", bytes);
  return static_cast<int>(bytes);
}

}  // namespace

bool mpi_is_usable() {
  return !requests_are_left;
}

void leave_requests() {
  requests_are_left = true;
}

void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail("{}: {}", call, std::string(text, length));
}

MpiComm::MpiComm(MPI_Comm comm, int rank, std::vector<int> nodes, const WorldOptions& options,
                 std::function<void()> on_destroy)
    : Communicator(rank, std::move(nodes)),
      comm_(comm),
      options_(options),
      on_destroy_(std::move(on_destroy)),
      messages_(comm) {
  for (auto* each : {&send_counts_, &send_at_, &receive_counts_, &receive_at_}) each->resize(size_);
  incoming_.resize(size_);
  outgoing_.reserve(size_);  // it must not move: requests point into it
  set_timeout(options.timeout_seconds);
}

MpiComm::~MpiComm() {
  counters_->push_messages = nullptr;
  if (on_destroy_) on_destroy_();
}

std::unique_ptr<Communicator> MpiComm::make_part(std::span<const int> part_ranks, int color) {
  return make_part_of(comm_, part_ranks, color, options_);
}

void MpiComm::do_broadcast(std::vector<std::int32_t>& message) {
  require_usable();
  constexpr int kHead = kBroadcastHead;
  head_.resize(kHead);
  head_[0] = static_cast<std::int32_t>(message.size());
  if (rank_ == 0) std::copy_n(message.data(), std::min<std::size_t>(message.size(), kHead - 1), head_.data() + 1);
  MPI_Request request;
  check_mpi(MPI_Ibcast(head_.data(), kHead, MPI_INT32_T, 0, comm_, &request), "MPI_Ibcast");
  wait(request, "a broadcast");
  if (head_[0] < 0) fail("rank {} in a broadcast: expected a length, got {}", rank_, head_[0]);
  const int first = std::min(head_[0], kHead - 1), rest = head_[0] - first;
  if (rank_ != 0) {
    message.resize(head_[0]);
    std::copy_n(head_.data() + 1, first, message.data());
  }
  if (rest > 0) {
    check_mpi(MPI_Ibcast(message.data() + first, rest, MPI_INT32_T, 0, comm_, &request), "MPI_Ibcast");
    wait(request, "a broadcast");
  }
  for (int peer = 1; rank_ == 0 && peer < size_; ++peer) {
    count_message(counters_->broadcast, peer, kHead * sizeof(std::int32_t));
    if (rest > 0) count_message(counters_->broadcast, peer, rest * sizeof(std::int32_t));
  }
}

void MpiComm::require_usable() const {
  if (requests_are_left) fail("rank {}: expected the job to end, as an exchange of it has failed, got another", rank_);
}

void MpiComm::do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) {
  require_usable();
  if (!sums_in_slices(size_, count)) return sum_whole(plan, partials, count, wire);
  const Slices slices{count, size_};
  reduce_scatter(plan, partials, slices, wire);
  all_gather(partials, slices, wire);
}

// Every rank receives all partials and adds them in the plan's order. Long ones go in pieces, several of which are on
// their way at once. So the others travel while one is added, and no piece waits until its receiver says that it is
// ready.
void MpiComm::sum_whole(const SumPlan& plan, float* partials, std::size_t count, Wire wire) {
  constexpr std::size_t kTogether = 8;
  const std::size_t pieces = (count + kSumPiece - 1) / kSumPiece, all = plan.total_partials();
  send_.resize(plan.partials(rank_) * wire_bytes(wire, count));
  receive_.resize(all * wire_bytes(wire, count));
  piece_requests_.resize(pieces);
  for (std::size_t i = 0; i < pieces + kTogether; ++i) {
    if (i < pieces) start_piece(plan, partials, count, wire, i);
    if (i < kTogether) continue;
    const std::size_t piece = i - kTogether, at = piece * kSumPiece;
    if (piece >= pieces) break;
    wait(piece_requests_[piece], "a sum");
    const std::size_t n = std::min(kSumPiece, count - at), bytes = wire_bytes(wire, n);
    sum_.clear();
    for (std::size_t j = 0; j < all; ++j) sum_.add(receive_.data() + all * wire_bytes(wire, at) + j * bytes);
    sum_.reduce(plan, wire, n, partials + at);
  }
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) count_message(counters_->sum, peer, send_.size());
}

void MpiComm::start_piece(const SumPlan& plan, const float* partials, std::size_t count, Wire wire, std::size_t piece) {
  const std::size_t at = piece * kSumPiece, n = std::min(kSumPiece, count - at), bytes = wire_bytes(wire, n);
  const std::size_t own = plan.partials(rank_), before = wire_bytes(wire, at);
  // MPI reads these arrays until the piece has arrived. They are the same for all pieces but a shorter last one.
  std::vector<int>& counts = n == kSumPiece ? receive_counts_ : send_counts_;
  std::vector<int>& places = n == kSumPiece ? receive_at_ : send_at_;
  for (int peer = 0; (piece == 0 || n < kSumPiece) && peer < size_; ++peer) {
    counts[peer] = to_int(plan.partials(peer) * bytes);
    places[peer] = to_int(plan.first_partial(peer) * bytes);
  }
  const void* send = partials + at;
  if (wire != Wire::kF32 || own != 1) {
    for (std::size_t i = 0; i < own; ++i)
      encode(wire, partials + i * count + at, n, send_.data() + own * before + i * bytes);
    send = send_.data() + own * before;
  }
  check_mpi(MPI_Iallgatherv(send, counts[rank_], MPI_BYTE, receive_.data() + plan.total_partials() * before,
                            counts.data(), places.data(), MPI_BYTE, comm_, &piece_requests_[piece]),
            "MPI_Iallgatherv");
}

// Every rank receives its slice of all partials and adds them in the plan's order.
void MpiComm::reduce_scatter(const SumPlan& plan, float* partials, const Slices& slices, Wire wire) {
  const std::size_t own = plan.partials(rank_), size = slices.size(rank_), bytes = wire_bytes(wire, size);
  send_.resize(own * wire_bytes(wire, slices.count));
  receive_.resize(plan.total_partials() * bytes);
  std::size_t at = 0;
  for (int peer = 0; peer < size_; ++peer) {
    const std::size_t n = slices.size(peer);
    send_at_[peer] = to_int(at);
    for (std::size_t i = 0; i < own; ++i, at += wire_bytes(wire, n))
      encode(wire, partials + i * slices.count + slices.begin(peer), n, send_.data() + at);
    send_counts_[peer] = to_int(own * wire_bytes(wire, n));
    receive_counts_[peer] = to_int(plan.partials(peer) * bytes);
    receive_at_[peer] = to_int(plan.first_partial(peer) * bytes);
    if (peer != rank_) count_message(counters_->sum, peer, send_counts_[peer]);
  }
  MPI_Request request;
  check_mpi(MPI_Ialltoallv(send_.data(), send_counts_.data(), send_at_.data(), MPI_BYTE, receive_.data(),
                           receive_counts_.data(), receive_at_.data(), MPI_BYTE, comm_, &request),
            "MPI_Ialltoallv");
  wait(request, "a sum");
  sum_.clear();
  for (int i = 0; i < plan.total_partials(); ++i) sum_.add(receive_.data() + i * bytes);
  sum_.reduce(plan, wire, size, partials + slices.begin(rank_));
}

// Slices are cut at multiples of kWireBlock, so the encoded slices make up the encoded vector.
void MpiComm::all_gather(float* x, const Slices& slices, Wire wire) {
  for (int peer = 0; peer < size_; ++peer) {
    receive_at_[peer] = to_int(wire_bytes(wire, slices.begin(peer)));
    receive_counts_[peer] = to_int(wire_bytes(wire, slices.size(peer)));
    if (peer != rank_) count_message(counters_->sum, peer, wire_bytes(wire, slices.size(rank_)));
  }
  void* all = x;
  if (wire != Wire::kF32) {
    receive_.resize(wire_bytes(wire, slices.count));
    encode(wire, x + slices.begin(rank_), slices.size(rank_), receive_.data() + receive_at_[rank_]);
    all = receive_.data();
  }
  MPI_Request request;
  check_mpi(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, all, receive_counts_.data(), receive_at_.data(), MPI_BYTE, comm_,
                            &request),
            "MPI_Iallgatherv");
  wait(request, "a sum");
  if (wire != Wire::kF32) decode(wire, receive_.data(), slices.count, x);
}

void MpiComm::do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) {
  require_usable();
  std::size_t total = 0;
  for (int peer = 0; peer < size_; total += bytes[peer++]) {
    receive_at_[peer] = to_int(total);
    receive_counts_[peer] = to_int(bytes[peer]);
  }
  MPI_Request request;
  check_mpi(MPI_Igatherv(send.data(), receive_counts_[rank_], MPI_BYTE, out, receive_counts_.data(), receive_at_.data(),
                         MPI_BYTE, 0, comm_, &request),
            "MPI_Igatherv");
  wait(request, "a gather");
}

// A short message is sent as one MPI message. A long one is announced by its length, and goes in pieces, a few of which
// are on their way at once. MPI keeps the order of messages between two ranks, and each call receives one from every
// rank, so the messages of two calls cannot be mixed up.
void MpiComm::do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                            std::span<std::byte> receive, std::span<std::size_t> receive_bytes) {
  require_usable();
  receive_bytes[rank_] = send_bytes[rank_];
  const std::size_t own_at = std::accumulate(send_bytes.begin(), send_bytes.begin() + rank_, std::size_t{0});
  const auto own = send.subspan(own_at, send_bytes[rank_]);
  start_sends(send, send_bytes, own_at);
  // The place of a message in `receive` is known, and the message is received there, once it and those of all ranks
  // before it have been announced.
  std::fill(incoming_.begin(), incoming_.end(), Incoming());
  receptions_.clear();
  int placed = 0;
  std::size_t at = 0;
  wait_until("an all-to-all", [&] {
    bool sent = true;
    for (Outgoing& message : outgoing_) sent = send_more(message) && sent;
    for (int peer = placed; peer < size_; ++peer)
      if (peer != rank_ && !incoming_[peer].announced) probe(peer, receive_bytes[peer]);
    for (; placed < size_ && (placed == rank_ || incoming_[placed].announced); ++placed) {
      const std::size_t bytes = receive_bytes[placed];
      check_room(receive_bytes.first(placed + 1), receive.size());
      if (placed == rank_)
        std::copy(own.begin(), own.end(), receive.data() + at);
      else
        start_receptions(placed, receive.subspan(at, bytes));
      at += bytes;
    }
    int received = 0;
    if (placed == size_)
      check_mpi(MPI_Testall(static_cast<int>(receptions_.size()), receptions_.data(), &received, MPI_STATUSES_IGNORE),
                "MPI_Testall");
    return sent && received != 0;
  });
}

// Begins with the next rank and goes around, so that not all ranks begin with rank 0.
void MpiComm::start_sends(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                          std::size_t own_at) {
  outgoing_.clear();
  std::size_t at = own_at + send_bytes[rank_];
  for (int i = 1; i < size_; ++i) {
    const int peer = (rank_ + i) % size_;
    if (peer == 0) at = 0;
    Outgoing& message =
        outgoing_.emplace_back(Outgoing{peer, send.subspan(at, send_bytes[peer]), send_bytes[peer], {}});
    message.requests.fill(MPI_REQUEST_NULL);
    const bool is_long = message.bytes > kPieceBytes;
    // MPI reads the length after this function has returned, so it is kept in outgoing_.
    check_mpi(MPI_Isend(is_long ? static_cast<const void*>(&message.bytes) : message.rest.data(),
                        to_int(is_long ? sizeof message.bytes : message.bytes), MPI_BYTE, peer,
                        is_long ? kLengthTag : kMessageTag, comm_, &message.requests[0]),
              "MPI_Isend");
    if (!is_long) message.rest = {};
    at += send_bytes[peer];
  }
}

// Starts further pieces of the message. Returns whether all of it has been sent.
bool MpiComm::send_more(Outgoing& message) {
  bool done = true;
  for (MPI_Request& request : message.requests) {
    int sent = 0;
    check_mpi(MPI_Test(&request, &sent, MPI_STATUS_IGNORE), "MPI_Test");
    if (sent != 0 && !message.rest.empty()) {
      const auto piece = message.rest.first(std::min(kPieceBytes, message.rest.size()));
      check_mpi(MPI_Isend(piece.data(), to_int(piece.size()), MPI_BYTE, message.peer, kPieceTag, comm_, &request),
                "MPI_Isend");
      message.rest = message.rest.subspan(piece.size());
      sent = 0;
    }
    done = done && sent != 0;
  }
  return done;
}

// Looks for the next message from `peer`, or for its announcement. Once it is found, the length is known.
void MpiComm::probe(int peer, std::size_t& bytes) {
  Incoming& message = incoming_[peer];
  int found = 0, count = 0;
  MPI_Status status;
  check_mpi(MPI_Improbe(peer, MPI_ANY_TAG, comm_, &found, &message.handle, &status), "MPI_Improbe");
  if (!found) return;
  message.announced = true;
  message.in_pieces = status.MPI_TAG == kLengthTag;
  MPI_Get_count(&status, MPI_BYTE, &count);
  bytes = static_cast<std::size_t>(count);
  if (message.in_pieces)
    check_mpi(MPI_Mrecv(&bytes, sizeof bytes, MPI_BYTE, &message.handle, MPI_STATUS_IGNORE), "MPI_Mrecv");
}

void MpiComm::start_receptions(int peer, std::span<std::byte> to) {
  Incoming& message = incoming_[peer];
  if (!message.in_pieces) {
    check_mpi(MPI_Imrecv(to.data(), to_int(to.size()), MPI_BYTE, &message.handle, &receptions_.emplace_back()),
              "MPI_Imrecv");
    return;
  }
  for (; !to.empty(); to = to.subspan(std::min(kPieceBytes, to.size())))
    check_mpi(MPI_Irecv(to.data(), to_int(std::min(kPieceBytes, to.size())), MPI_BYTE, peer, kPieceTag, comm_,
                        &receptions_.emplace_back()),
              "MPI_Irecv");
}

void MpiComm::do_send(int peer, std::vector<std::byte> message) {
  require_usable();
  messages_.send(peer, std::move(message));
  counters_->push_messages = [this] { return messages_.progress(); };
}

void MpiComm::do_receive(int peer, std::size_t bytes, std::vector<std::byte>& message) {
  require_usable();
  message.resize(bytes);
  if (const std::size_t got = messages_.receive(peer, message, rank_, timeout()); got != bytes)
    refuse_message(peer, bytes, got);
}

void MpiComm::wait(MPI_Request& request, const char* what) {
  wait_until(what, [&] {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    return done != 0;
  });
}

template <typename Ready>
void MpiComm::wait_until(const char* what, Ready&& ready) {
  wait_for_mpi(rank_, timeout(), what, ready);
}

}  // namespace foe
