#include "bench/comm.h"

#include <algorithm>
#include <numeric>

#include "base/aligned.h"
#include "base/clock.h"
#include "bench/mpi_peer.h"
#include "kernels/peak.h"

namespace foe {
namespace {

// One of our collectives and its counterpart in MPI, on buffers of the same size.
struct Contest {
  std::string collective;
  double least_bytes;
  double readings;  // how often all ranks together read a buffer, if they are on one node
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

// What exchanges data: nodes or, on one node, its ranks.
struct Peers {
  double units;  // how many there are
  double pairs;  // how many pairs there are of a rank in rank 0's unit and one in another
};

Peers peers_of(const Communicator& comm) {
  const auto ranks = static_cast<double>(comm.size());
  const int nodes = comm.nodes().back() + 1;
  if (nodes == 1) return {ranks, ranks - 1};
  const auto own = static_cast<double>(std::count(comm.nodes().begin(), comm.nodes().end(), 0));
  return {static_cast<double>(nodes), own * (ranks - own)};
}

// Times one call, which begins when all ranks are there. Rank 0 gets the time of the slowest rank, because a rank that
// only sends, like the root of a broadcast, is done before its message has arrived.
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
  const double read_bytes = comm.nodes().back() == 0 ? contest.readings * contest.least_bytes : 0;
  return {.collective = contest.collective,
          .bytes = bytes,
          .repetitions = static_cast<int>(ours.size()),
          .ours = a.median,
          .ours_low = a.low,
          .ours_high = a.high,
          .mpi = b.median,
          .mpi_low = b.low,
          .mpi_high = b.high,
          .least_bytes = contest.least_bytes,
          .read_bytes = read_bytes};
}

}  // namespace

double memory_limit(const Communicator& comm) {
  double bytes_per_s = 0;
  with_unbound_pool(comm.size(), [&](ThreadPool& pool) { bytes_per_s = measure_read_bandwidth(pool); });
  return bytes_per_s;
}

std::vector<CommPoint> bench_comm(Communicator& comm, const std::vector<std::size_t>& sizes, Wire wire,
                                  double seconds_per_point, const std::function<void(const CommPoint&)>& progress) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  std::vector<int> begin(ranks + 1);
  std::iota(begin.begin(), begin.end(), 0);
  const SumPlan plan(begin);
  std::vector<CommPoint> points;
  for (const std::size_t bytes : sizes) {
    const std::size_t n = std::max<std::size_t>(1, bytes / sizeof(float));
    // Each has buffers of its own: if MPI had read a buffer from another process, our writes to it would be slower.
    const TermBuffer x = comm.allocate_terms(n);
    std::fill_n(x.data(), n, 0.0f);
    AlignedBuffer<float> mpi_x = AlignedBuffer<float>::zeroed(n), send = AlignedBuffer<float>::zeroed(n * ranks),
                         receive = AlignedBuffer<float>::zeroed(n * ranks),
                         mpi_send = AlignedBuffer<float>::zeroed(n * ranks),
                         mpi_receive = AlignedBuffer<float>::zeroed(n * ranks);
    std::vector<std::size_t> send_bytes(ranks, n * sizeof(float)), receive_bytes(ranks);
    std::vector<std::int32_t> message(n);
    const Peers peers = peers_of(comm);
    const double size = static_cast<double>(n * sizeof(float)), all = comm.size();
    const Contest contests[] = {
        {"sum", 2 * size * (peers.units - 1) / peers.units, all, [&] { comm.ordered_sum(plan, x.data(), n, wire); },
         [&] {
           mpi_all_reduce({mpi_x.data(), n});
         }},
        {"all-to-all", size * peers.pairs, all,
         [&] {
           comm.all_to_all(std::as_bytes(send.span()), send_bytes, std::as_writable_bytes(receive.span()),
                           receive_bytes);
         },
         [&] { mpi_all_to_all(mpi_send.span(), mpi_receive.span()); }},
        {"broadcast", size, all - 1, [&] { comm.broadcast(message); },
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
