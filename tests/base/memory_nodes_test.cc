#include "base/memory_nodes.h"

#include <filesystem>
#include <numeric>

#include <gmock/gmock.h>

#include "base/error.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(ProcessorList, IsReadAsTheKernelWritesIt) {
  EXPECT_THAT(parse_processor_list("0"), ElementsAre(0));
  EXPECT_THAT(parse_processor_list("0-2,8,10-11\n"), ElementsAre(0, 1, 2, 8, 10, 11));
  EXPECT_THAT(parse_processor_list("\n"), IsEmpty());
}

TEST(ProcessorList, RefusesWhatIsNone) {
  for (const char* list : {"a", "0-", "-1", "3-1", "0,", "0;1", "0-70000", "99999999999999999999"})
    EXPECT_THROW(parse_processor_list(list), Error) << list;
}

// A folder as the kernel has it, of nodes with these lists.
class MemoryNodes : public testing::Test {
 protected:
  void add(const std::string& node, const std::string& list) {
    std::filesystem::create_directories(folder_ / node);
    folder_.write(node + "/cpulist", list + "\n");
  }

  TempFolder folder_;
};

TEST_F(MemoryNodes, AreThoseOfTheFolder) {
  // Two sockets with two threads a core, and a node that has only memory; nodes are sorted by number, not by name.
  add("node0", "0-31,128-159");
  add("node10", "96-127,224-255");
  add("node2", "32-95,160-223");
  add("node3", "");
  add("possible", "0-10");
  std::vector<int> all(256);
  std::iota(all.begin(), all.end(), 0);
  const auto nodes = memory_nodes(folder_.path(), all);
  ASSERT_THAT(nodes, SizeIs(3));
  EXPECT_EQ(nodes[1].front(), 32);
  EXPECT_EQ(nodes[2].front(), 96);
  EXPECT_THAT(nodes, ElementsAre(SizeIs(64), SizeIs(128), SizeIs(64)));
}

TEST_F(MemoryNodes, HaveOnlyProcessorsThatMayBeUsed) {
  add("node0", "0-3");
  add("node1", "4-7");
  EXPECT_THAT(memory_nodes(folder_.path(), {1, 5, 6}), ElementsAre(ElementsAre(1), ElementsAre(5, 6)));
  EXPECT_THAT(memory_nodes(folder_.path(), {6}), ElementsAre(ElementsAre(6)));
}

TEST_F(MemoryNodes, AreOneWhereTheSystemSaysNothing) {
  EXPECT_THAT(memory_nodes(folder_.path(), {0, 1}), ElementsAre(ElementsAre(0, 1)));  // an empty folder
  EXPECT_THAT(memory_nodes(folder_ / "none", {0, 1}), ElementsAre(ElementsAre(0, 1)));
  EXPECT_THAT(memory_nodes(), SizeIs(testing::Ge(1)));  // of this machine
}

TEST_F(MemoryNodes, RefusesAListThatIsNone) {
  add("node0", "zero");
  EXPECT_THROW(memory_nodes(folder_.path(), {0}), Error);
}

}  // namespace
}  // namespace foe
