#include "bench/machine.h"

#include <numeric>

#include <gmock/gmock.h>

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Machine, ThreadsDoubleUntilAll) {
  EXPECT_THAT(thread_counts(1), ElementsAre(1));
  EXPECT_THAT(thread_counts(2), ElementsAre(1, 2));
  EXPECT_THAT(thread_counts(24), ElementsAre(1, 2, 4, 8, 16, 24));
  EXPECT_EQ(thread_counts(128).size(), 8u);
}

TEST(Machine, RanksAreMemoryNodesOrHalvesOfTheOnlyOne) {
  EXPECT_THAT(processors_of_ranks({{0, 1, 2, 3}}), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  EXPECT_THAT(processors_of_ranks({{4, 5, 9}}), ElementsAre(ElementsAre(4), ElementsAre(5, 9)));
  EXPECT_THAT(processors_of_ranks({{7}}), ElementsAre(ElementsAre(7)));
  std::vector<std::vector<int>> sockets(2, std::vector<int>(64));
  std::iota(sockets[0].begin(), sockets[0].end(), 0);
  std::iota(sockets[1].begin(), sockets[1].end(), 64);
  EXPECT_EQ(processors_of_ranks(sockets), sockets);
}

TEST(Machine, TheReportHasWhatWasMeasured) {
  MachineReport report;
  report.how = "by a test";
  report.facts = {.processor = "Processor X",
                  .kernel = "Linux",
                  .huge_pages = "madvise",
                  .instruction_set = "AVX2",
                  .memory_bytes = 2.5e9,
                  .nodes = {{0, 1}, {2, 3}}};
  report.limits = {{1, {.read_bytes_per_s = 12.34e9, .flops_per_s = 1e11, .dots_per_s = 2e11}},
                   {4, {.read_bytes_per_s = 40e9, .flops_per_s = 4e11, .dots_per_s = 8e11, .tiles = {1e12, 2e12}}}};
  for (const int tokens : {1, 16, 512})
    report.kernels.push_back({.kernel = "experts",
                              .format = WeightFormat::kInt8,
                              .tokens = tokens,
                              .repetitions = 5,
                              .seconds = 1e-3,
                              .low = 1e-3,
                              .high = 1e-3,
                              .bytes = 20e6,
                              .operations = 1e9});
  report.steps = {{.ranks = 2,
                   .threads = 2,
                   .bound = true,
                   .format = WeightFormat::kInt8,
                   .prefill_512 = 1000,
                   .decode_1 = 50.25,
                   .decode_16 = 400}};
  const std::string text = to_markdown(report);
  EXPECT_THAT(text, HasSubstr("# foe on Processor X\n"));
  EXPECT_THAT(text, HasSubstr("| processors that foe may use | 4 |\n| memory node 0 | processors 0 1 |\n"));
  EXPECT_THAT(text,
              HasSubstr("| 1 | 12.3 | 100.0 | 200.0 | - | - |\n| 4 | 40.0 | 400.0 | 800.0 | 1000.0 | 2000.0 |\n"));
  // 20 MB of 40 GB/s, and 1 of 2,000 Gop/s, in a millisecond
  EXPECT_THAT(text,
              HasSubstr("| experts | int8 | 1000 us, 50 %, 50 % | 1000 us, 50 %, 50 % | 1000 us, 50 %, 50 % |\n"));
  EXPECT_THAT(text, HasSubstr("| int8 | 2, bound | 2 | 1000 | 50.2 | 400.0 |\n"));
}

}  // namespace
}  // namespace foe
