// One rank dies or stops in the middle of a collective, and every other rank says what it waited for in vain:
//
//     mpirun -n RANKS comm_faults COLLECTIVE shared|mpi KILL|STOP TIMEOUT FOLDER
//
// In FOLDER, which is empty at first, the ranks that noticed meet before they end the job, so that none of them is
// ended by another before it had its say.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "comm/communicator.h"

namespace foe {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kShort = 100, kLong = 1 << 20;  // floats: long ones go in several pieces of shared memory

std::atomic<int> calls_done = 0;

void sum(Communicator& comm, std::size_t count) {
  std::vector<int> begin(comm.size() + 1);
  std::iota(begin.begin(), begin.end(), 0);
  std::vector<float> terms(count, 1.0f);
  comm.ordered_sum(SumPlan(begin), terms.data(), count);
}

void broadcast(Communicator& comm, std::size_t count) {
  std::vector<std::int32_t> message(count);
  comm.broadcast(message);
}

// A rank that only sends does not wait: a broadcast lets it hear that the others are there.
void gather(Communicator& comm, std::size_t count) {
  const std::vector<float> send(count);
  std::vector<float> out(count * comm.size());
  comm.gather(send, std::vector<std::size_t>(comm.size(), count), out.data());
  broadcast(comm, 1);
}

void all_to_all(Communicator& comm, std::size_t count) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  const std::size_t bytes = count * sizeof(float);
  const std::vector<std::byte> send(ranks * bytes);
  std::vector<std::byte> receive(ranks * bytes);
  std::vector<std::size_t> lengths(ranks);
  comm.all_to_all(send, std::vector<std::size_t>(ranks, bytes), receive, lengths);
}

// The last rank sends one to each, and receives one of each.
void message(Communicator& comm, std::size_t count) {
  const int last = comm.size() - 1;
  std::vector<std::byte> received;
  for (int peer = 0; peer <= last; ++peer) {
    if (comm.rank() == peer || (comm.rank() != last && peer != last)) continue;
    comm.send(peer, std::vector<std::byte>(count));
    comm.receive(peer, count, received);
  }
  comm.flush();
}

const std::map<std::string, std::function<void(Communicator&)>> kCollectives{
    {"broadcast", [](Communicator& comm) { broadcast(comm, kShort); }},
    {"broadcast-long", [](Communicator& comm) { broadcast(comm, kLong); }},
    {"sum", [](Communicator& comm) { sum(comm, kShort); }},
    {"sum-long", [](Communicator& comm) { sum(comm, kLong); }},
    {"gather", [](Communicator& comm) { gather(comm, kShort); }},
    {"all-to-all", [](Communicator& comm) { all_to_all(comm, kShort); }},
    {"all-to-all-long", [](Communicator& comm) { all_to_all(comm, kLong / comm.size()); }},
    {"message", [](Communicator& comm) { message(comm, kShort); }},
    {"message-long", [](Communicator& comm) { message(comm, kLong); }},
};

// Hits this process while its main thread goes from one collective to the next.
void hit_after(int calls, int signal) {
  std::thread([=] {
    while (calls_done < calls) std::this_thread::sleep_for(100us);
    kill(getpid(), signal);
  }).detach();
}

void meet_in(const std::filesystem::path& folder, int rank, int others) {
  std::ofstream(folder / std::to_string(rank)).put('\n');
  const auto here = [&] { return std::distance(std::filesystem::directory_iterator(folder), {}); };
  for (int tries = 0; here() < others && tries < 3000; ++tries) std::this_thread::sleep_for(10ms);
}

}  // namespace
}  // namespace foe

int main(int argc, char** argv) {
  using namespace foe;
  FOE_CHECK(argc == 6, "{} arguments", argc - 1);
  const std::string name = argv[1];
  const auto comm = make_world_comm({std::atof(argv[4]), std::string(argv[2]) == "shared"});
  // Someone for whom all others wait.
  const int victim = name.starts_with("broadcast") ? 0 : comm->size() - 1;
  if (comm->rank() == victim) hit_after(10, std::string(argv[3]) == "KILL" ? SIGKILL : SIGSTOP);
  try {
    for (;; ++calls_done) kCollectives.at(name)(*comm);
  } catch (const Error& error) {
    std::printf("noticed: %s\n", error.what());
    std::fflush(stdout);
    meet_in(argv[5], comm->rank(), comm->size() - 1);
    abort_world(1);
  }
}
