#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <mpi.h>
#include <numeric>
#include <string>

#include "base/aligned.h"
#include "base/clock.h"
#include "base/error.h"
#include "comm/mpi_comm.h"
#include "comm/nodes_comm.h"
#include "comm/rank_lost.h"

namespace foe {
namespace {

// MPI_Finalize waits for all ranks. A rank that fails must not wait: whoever catches its Error calls abort_world().
void finalize() {
  if (std::uncaught_exceptions() == 0 && mpi_is_usable()) MPI_Finalize();
}

std::vector<int> nodes_of(MPI_Comm comm, const WorldOptions& options) {
  int rank = 0, size = 0;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  int first = rank;  // the first rank of this rank's node, which stands for the node
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

class NodeComm : public SharedComm {
 public:
  NodeComm(MPI_Comm node, int rank, int size, std::byte* memory, const WorldOptions& options,
           std::function<void()> on_destroy)
      : SharedComm(rank, std::vector<int>(size), memory, options.timeout_seconds, std::move(on_destroy)),
        node_(node),
        options_(options),
        messages_(node) {}

  ~NodeComm() override { counters_->push_messages = nullptr; }

  void do_send(int peer, std::vector<std::byte> message) override {
    messages_.send(peer, std::move(message));
    counters_->push_messages = [this] { return messages_.progress(); };
  }
  void do_receive(int peer, std::size_t bytes, std::vector<std::byte>& message) override {
    const auto start = Clock::now();
    message.resize(bytes);
    std::size_t got = 0;
    try {
      got = messages_.receive(peer, message, rank_, timeout());
    } catch (const RankLost&) {
      throw_silent(peer);
    }
    counters_->waited_s += seconds_since(start);
    if (got != bytes) refuse_message(peer, bytes, got);
  }
  void progress() override { messages_.progress(); }
  void flush() override {
    try {
      messages_.flush(rank_, timeout());
    } catch (const RankLost&) {
      throw_silent(messages_.waits_for());
    }
  }

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int> part_ranks, int color) override {
    return make_part_of(node_, part_ranks, color, options_);
  }

 private:
  MPI_Comm node_;
  WorldOptions options_;
  MpiMessages messages_;
};

// Returns an MPI communicator of the ranks with one colour, in the order of their ranks.
MPI_Comm split(MPI_Comm comm, int color) {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm, color, 0, &part), "MPI_Comm_split");
  return part;
}

std::unique_ptr<SharedComm> make_node_comm(MPI_Comm node, const WorldOptions& options,
                                           std::function<void()> on_destroy) {
  int rank = 0, size = 0;
  MPI_Comm_rank(node, &rank);
  MPI_Comm_size(node, &size);
  MPI_Win window;
  void* mine = nullptr;
  // Rank 0 allocates all of it as one contiguous piece, like the memory that threads of one process share. MPI need not
  // align it (Open MPI does not). Whole pages are mapped, so the first aligned byte is the same one for every rank.
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
  if (rank == 0) SharedComm::clear(static_cast<std::byte*>(memory), size);
  MPI_Barrier(node);
  // The window is not freed here, because that would be collective, and a rank that fails leaves alone. MPI_Finalize
  // releases it.
  return std::make_unique<NodeComm>(node, rank, size, static_cast<std::byte*>(memory), options, std::move(on_destroy));
}

bool started_by_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMI_SIZE") || std::getenv("PMIX_RANK");
}

// Returns the command line of this process, to quote it in a message.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string text, word;
  while (std::getline(file, word, '\0')) {
    const bool plain = word.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                           "_-+=./,:@%") == word.npos;
    text += " " + (plain && !word.empty() ? word : "'" + word + "'");
  }
  return text;
}

// Throws Error if a launcher has started several processes but MPI knows of one: each of them would run the whole job.
void refuse_lonely_ranks() {
  const int processes = processes_of_launcher();
  if (processes <= 1) return;
  fail(
      "expected {0} processes that are the ranks of one job, as the launcher says, but to Open MPI each of them is "
      "alone."
      " Start them with its own launcher: mpirun -n {0} --bind-to none{1}; or under Slurm: srun --mpi=pmix -n {0}{1}",
      processes, command_line());
}

}  // namespace

std::unique_ptr<Communicator> make_comm(MPI_Comm comm, const WorldOptions& options, std::function<void()> on_destroy) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  std::vector<int> nodes = nodes_of(comm, options);
  if (options.share_memory && *std::max_element(nodes.begin(), nodes.end()) == 0)
    return make_node_comm(comm, options, std::move(on_destroy));
  std::optional<NodeGrid> grid = node_grid(nodes, rank);
  auto world = std::make_unique<MpiComm>(comm, rank, std::move(nodes), options, std::move(on_destroy));
  if (!grid) return world;
  std::unique_ptr<SharedComm> inside = make_node_comm(split(comm, grid->node), options, {});
  const MPI_Comm place = split(comm, grid->place < grid->fewest ? grid->place : MPI_UNDEFINED);
  std::unique_ptr<Communicator> between;
  if (place != MPI_COMM_NULL) {
    std::vector<int> each(grid->begin.size() - 1);
    std::iota(each.begin(), each.end(), 0);
    between = std::make_unique<MpiComm>(place, grid->node, std::move(each), options, nullptr);
  }
  return std::make_unique<NodesComm>(std::move(*grid), std::move(world), std::move(inside), std::move(between));
}

// The MPI communicator is not freed before MPI_Finalize, because that would be collective, and a rank that fails leaves
// alone.
std::unique_ptr<Communicator> make_part_of(MPI_Comm comm, std::span<const int> part_ranks, int color,
                                           const WorldOptions& options) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  const auto own = std::find(part_ranks.begin(), part_ranks.end(), rank) - part_ranks.begin();
  MPI_Comm part;
  check_mpi(MPI_Comm_split(comm, color < 0 ? MPI_UNDEFINED : color, static_cast<int>(own), &part), "MPI_Comm_split");
  if (color < 0) return nullptr;
  if (part_ranks.size() == 1) return make_self_comm();
  return make_comm(part, options, {});
}

// The variables of the launcher itself count first: others may be left from the job or the batch system around it.
int processes_of_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"})
    if (const char* value = std::getenv(name)) return std::max(1, std::atoi(value));
  return 1;
}

std::unique_ptr<Communicator> make_world_comm(const WorldOptions& options) {
  if (!started_by_mpirun()) {
    refuse_lonely_ranks();
    return make_self_comm();
  }
  int provided = 0, size = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  // With --overlap another thread than the one that has called this one communicates.
  if (provided < MPI_THREAD_SERIALIZED)
    fail(
        "MPI_Init_thread: expected thread level {} (MPI_THREAD_SERIALIZED), got {}: this Open MPI was built without"
        " support for threads",
        static_cast<int>(MPI_THREAD_SERIALIZED), provided);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size == 1) refuse_lonely_ranks();
  return make_comm(MPI_COMM_WORLD, options, finalize);
}

void abort_world(int status) {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (initialised && !finalised) MPI_Abort(MPI_COMM_WORLD, status);
}

}  // namespace foe
