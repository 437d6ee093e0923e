#include "engine/processors.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <numeric>
#include <sched.h>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>

#include "base/thread_pool.h"
#include "comm/ranks.h"

namespace foe {
namespace {

using testing::ElementsAre;

// As hwloc describes machines; such a one is not asked what this process may use.
class Described {
 public:
  explicit Described(const char* machine) { setenv("HWLOC_SYNTHETIC", machine, 1); }
  ~Described() { unsetenv("HWLOC_SYNTHETIC"); }
};

constexpr char kTwoNodes[] = "pack:2 [numa] core:2 pu:2";

TEST(Processors, OfTwoNodesCoresBeforeSecondThreads) {
  const Described machine(kTwoNodes);
  EXPECT_THAT(usable_processors(), ElementsAre(ElementsAre(0, 2, 1, 3), ElementsAre(4, 6, 5, 7)));
}

TEST(Processors, HaveOneNodeWhereMemoryOfSeveralIsBesideThem) {
  {
    const Described machine("[numa] pack:2 [numa] core:2 pu:1");  // memory of the machine beside that of packages
    EXPECT_THAT(usable_processors(), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  }
  {
    const Described machine("pack:2 [numa] [numa] core:2 pu:1");  // two kinds in each package
    EXPECT_THAT(usable_processors(), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  }
}

TEST(Processors, RanksShareNodesAndNodesRanks) {
  const Processors two{{0, 2, 1, 3}, {4, 6, 5, 7}}, three{{0}, {1}, {2}};
  EXPECT_THAT(processors_of(two, 0, 1), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(processors_of(two, 0, 2), ElementsAre(0, 2, 1, 3));
  EXPECT_THAT(processors_of(two, 1, 2), ElementsAre(4, 6, 5, 7));
  EXPECT_THAT(processors_of(two, 1, 4), ElementsAre(0, 2, 1, 3));
  EXPECT_THAT(processors_of(two, 2, 4), ElementsAre(4, 6, 5, 7));
  EXPECT_THAT(processors_of(three, 0, 2), ElementsAre(0));
  EXPECT_THAT(processors_of(three, 1, 2), ElementsAre(1, 2));
}

TEST(Processors, NoTwoThreadsGetOneWhileThereAreOthers) {
  const Processors two{{0, 2, 1, 3}, {4, 6, 5, 7}};
  EXPECT_THAT(processors_to_pin(two, 0, 2, 2), ElementsAre(0, 2));
  EXPECT_THAT(processors_to_pin(two, 1, 2, 3), ElementsAre(4, 6, 5));
  EXPECT_THAT(processors_to_pin(two, 1, 4, 2), ElementsAre(1, 3));
  EXPECT_THAT(processors_to_pin(two, 3, 4, 2), ElementsAre(5, 7));
  EXPECT_THAT(processors_to_pin(two, 2, 3, 2), ElementsAre(4, 6));
  EXPECT_THAT(processors_to_pin(Processors{{5}}, 1, 2, 2), ElementsAre(5, 5)) << "more threads than processors";
}

// Machines of 16, 64 and 128 processors: their ranks together use each once, and no rank reaches into a second node if
// there are as many ranks as nodes.
TEST(Processors, OfLargeMachinesAreSharedEvenly) {
  for (const char* machine : {"pack:1 [numa] core:16 pu:1", "pack:2 [numa] core:16 pu:2",
                              "pack:2 [numa] l3:4 core:8 pu:2", "pack:8 [numa] core:16 pu:1"}) {
    const Described described(machine);
    const Processors usable = usable_processors();
    const int nodes = static_cast<int>(usable.size()), all = nodes * static_cast<int>(usable[0].size());
    for (const int ranks : {1, nodes, 2 * nodes}) {
      SCOPED_TRACE(std::string(machine) + ", " + std::to_string(ranks) + " ranks");
      std::vector<int> used;
      for (int rank = 0; rank < ranks; ++rank) {
        const std::vector<int> own = processors_to_pin(usable, rank, ranks, all / ranks);
        used.insert(used.end(), own.begin(), own.end());
        const int nodes_of_rank = static_cast<int>(std::count_if(usable.begin(), usable.end(), [&](const auto& node) {
          return std::find_first_of(own.begin(), own.end(), node.begin(), node.end()) != own.end();
        }));
        EXPECT_EQ(nodes_of_rank, std::max(1, nodes / ranks));
      }
      std::sort(used.begin(), used.end());
      std::vector<int> each(all);
      std::iota(each.begin(), each.end(), 0);
      EXPECT_EQ(used, each);
    }
  }
}

TEST(Processors, OfThisMachineAreThoseOfTheProcess) {
  const Processors usable = usable_processors();
  std::size_t count = 0;
  for (const std::vector<int>& node : usable) count += node.size();
  EXPECT_EQ(count, static_cast<std::size_t>(available_threads()));
}

TEST(Processors, PinnedThreadsRunWhereTheyShould) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const std::vector<int> pinned = processors_to_pin(usable_processors(), 0, 1, 3);
  {
    ThreadPool pool(3, pinned);
    std::vector<std::atomic<int>> seen(CPU_SETSIZE);
    std::atomic<int> begun = 0;
    pool.parallel_for(3, [&](std::size_t) {  // each waits for the others, so that none has two of the indices
      ++begun;
      while (begun < 3) std::this_thread::yield();
      EXPECT_EQ(available_threads(), 1);
      ++seen[sched_getcpu()];
    });
    for (const int cpu : pinned) EXPECT_EQ(seen[cpu], std::count(pinned.begin(), pinned.end(), cpu));
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(LocalShare, DividesWhatRanksMayUseTogether) {
  const auto share = [](const std::vector<std::vector<int>>& allowed, int rank) {
    const LocalShare s = share_of(allowed, rank);
    return std::vector<int>{s.rank, s.ranks, s.threads};
  };
  EXPECT_THAT(share({{0, 1, 2, 3}}, 0), ElementsAre(0, 1, 4));
  const std::vector<std::vector<int>> unbound(3, {0, 1, 2, 3, 4, 5, 6});  // as mpirun --bind-to none
  EXPECT_THAT(share(unbound, 0), ElementsAre(0, 3, 2));
  EXPECT_THAT(share(unbound, 2), ElementsAre(2, 3, 2));
  const std::vector<std::vector<int>> bound = {{0, 1, 2, 3}, {4, 5, 6, 7}};  // as srun --cpus-per-task 4
  EXPECT_THAT(share(bound, 0), ElementsAre(0, 1, 4));
  EXPECT_THAT(share(bound, 1), ElementsAre(0, 1, 4));
  const std::vector<std::vector<int>> mixed = {{0, 1, 2, 3}, {2, 3}, {0, 1, 2, 3}};
  EXPECT_THAT(share(mixed, 0), ElementsAre(0, 2, 1));  // 2/2 + 2/3
  EXPECT_THAT(share(mixed, 1), ElementsAre(0, 1, 1));
  EXPECT_THAT(share(std::vector<std::vector<int>>(5, {0, 1}), 4), ElementsAre(4, 5, 1));
}

// Nothing but the ranks themselves is asked: there is no launcher here.
TEST(LocalShare, ComesFromTheRanks) {
  std::vector<LocalShare> shares(5);
  run_ranks({0, 0, 0, 1, 1}, 60, [&](Communicator& comm) {
    shares[comm.rank()] = local_share(comm);
    EXPECT_EQ(comm.counters().total().calls, 0u);
  });
  const int all = available_threads();
  for (int r = 0; r < 5; ++r) {
    EXPECT_EQ(shares[r].rank, r < 3 ? r : r - 3);
    EXPECT_EQ(shares[r].ranks, r < 3 ? 3 : 2);
    EXPECT_EQ(shares[r].threads, std::max(1, all / shares[r].ranks));
  }
}

}  // namespace
}  // namespace foe
