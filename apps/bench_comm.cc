#include "bench_comm.h"

#include <algorithm>
#include <numeric>

#include "base/aligned.h"
#include "base/clock.h"
#include "comm/mpi_peer.h"

namespace foe {
namespace {

// A collective of ours and MPI's counterpart, on buffers of one size.
struct Contest {
  std::string collective;
  double least_bytes;
  std::function<void()> ours, mpi;
};

struct Quantiles {
  double low, median, high;
};

Quantiles quantiles(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  const auto at = [&](double q) { return x[static_cast<std::size_t>(q * static_cast<double>(x.size() - 1))]; };
  return {at(0.1), at(0.5), at(0.9)};
}

// What has to send: nodes, or the ranks of one.
struct Peers {
  double units;  // how many there are
  double pairs;  // of a rank of rank 0's and one of another's
};

Peers peers_of(const Communicator& comm) {
  const auto ranks = static_cast<double>(comm.size());
  const int nodes = comm.nodes().back() + 1;
  if (nodes == 1) return {ranks, ranks - 1};
  const auto own = static_cast<double>(std::count(comm.nodes().begin(), comm.nodes().end(), 0));
  return {static_cast<double>(nodes), own * (ranks - own)};
}

// One call, begun when all ranks are there; rank 0 gets the time of the slowest. A rank that only sends, as the root of
// a broadcast, is done before its message has arrived.
double timed(Communicator& comm, const std::function<void()>& call) {
  meet(comm);
  const Clock::time_point start = Clock::now();
  call();
  const auto seconds = static_cast<float>(seconds_since(start));
  std::vector<float> all(comm.size());
  comm.gather({&seconds, 1}, std::vector<std::size_t>(comm.size(), 1), all.data());
  return *std::max_element(all.begin(), all.end());
}

CommPoint run(Communicator& comm, const Contest& contest, std::size_t bytes, double seconds) {
  std::vector<double> ours, mpi;
  const bool peer = mpi_runs();
  double spent = 0;
  for (bool more = true; more;) {
    ours.push_back(timed(comm, contest.ours));
    mpi.push_back(peer ? timed(comm, contest.mpi) : 0);
    spent += ours.back() + mpi.back();
    std::vector<std::int32_t> decision{spent < seconds || ours.size() < 5};
    comm.broadcast(decision);
    more = decision[0] != 0;
  }
  const Quantiles a = quantiles(ours), b = quantiles(mpi);
  return {contest.collective, bytes, static_cast<int>(ours.size()), a.median, a.low, a.high, b.median, b.low, b.high,
          contest.least_bytes};
}

}  // namespace

std::vector<CommPoint> bench_comm(Communicator& comm, const std::vector<std::size_t>& sizes, Wire wire,
                                  double seconds_per_point, const std::function<void(const CommPoint&)>& progress) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  std::vector<int> begin(ranks + 1);
  std::iota(begin.begin(), begin.end(), 0);
  const SumPlan plan(begin);
  std::vector<CommPoint> points;
  for (const std::size_t bytes : sizes) {
    const std::size_t n = std::max<std::size_t>(1, bytes / sizeof(float));
    // Each has buffers of its own: what MPI reads of another process's memory would slow down our writing there.
    const TermBuffer x = comm.allocate_terms(n);
    std::fill_n(x.data(), n, 0.0f);
    AlignedBuffer<float> mpi_x = AlignedBuffer<float>::zeroed(n), send = AlignedBuffer<float>::zeroed(n * ranks),
                         receive = AlignedBuffer<float>::zeroed(n * ranks),
                         mpi_send = AlignedBuffer<float>::zeroed(n * ranks),
                         mpi_receive = AlignedBuffer<float>::zeroed(n * ranks);
    std::vector<std::size_t> send_bytes(ranks, n * sizeof(float)), receive_bytes(ranks);
    std::vector<std::int32_t> message(n);
    const Peers peers = peers_of(comm);
    const double size = static_cast<double>(n * sizeof(float));
    const Contest contests[] = {
        {"sum", 2 * size * (peers.units - 1) / peers.units, [&] { comm.ordered_sum(plan, x.data(), n, wire); },
         [&] {
           mpi_all_reduce({mpi_x.data(), n});
         }},
        {"all-to-all", size * peers.pairs,
         [&] {
           comm.all_to_all(std::as_bytes(send.span()), send_bytes, std::as_writable_bytes(receive.span()),
                           receive_bytes);
         },
         [&] { mpi_all_to_all(mpi_send.span(), mpi_receive.span()); }},
        {"broadcast", size, [&] { comm.broadcast(message); },
         [&] {
           mpi_broadcast({mpi_x.data(), n});
         }},
    };
    for (const Contest& contest : contests) {
      points.push_back(run(comm, contest, bytes, seconds_per_point));
      if (comm.rank() == 0) progress(points.back());
    }
  }
  return points;
}

}  // namespace foe
