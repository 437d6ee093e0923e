#include "simulate/cluster.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "simulate/clusters.h"

namespace foe {
namespace {

using testing::HasSubstr;

void expect_refused(const std::function<void()>& call, const std::string& why) {
  try {
    call();
    ADD_FAILURE() << "expected an Error: " << why;
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(why));
  }
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Cluster, IsReadAsWritten) {
  Cluster c = parse_cluster(round_cluster(16, 4), "f");
  EXPECT_EQ(c.device.bytes_per_s, 1e9);
  EXPECT_EQ(c.network.bytes_per_s, 1e8);
  c.name = "sixteen";
  c.device.experts = c.device.head = {{1, 8}, {1e9, 2e9}};
  c.network.shared = true;
  c.sum_algorithm = SumAlgorithm::kRing;
  c.all_to_all_s = 3e-6;
  c.step_s = 1e-4;
  const std::string text = to_toml(c);
  EXPECT_EQ(to_toml(parse_cluster(text, "f")), text);
  EXPECT_THAT(text, HasSubstr("experts_gflops = [1, 2]"));
}

TEST(Cluster, SpeedsAreInterpolatedOverTheLogarithmOfRows) {
  const SpeedByRows speed{{2, 8, 32}, {10, 20, 50}};
  EXPECT_EQ(speed.at(1), 10);
  EXPECT_EQ(speed.at(8), 20);
  EXPECT_DOUBLE_EQ(speed.at(4), 15);
  EXPECT_EQ(speed.at(1000), 50);
}

TEST(Cluster, RefusesWhatNoClusterIs) {
  const std::string good = round_cluster(8, 4);
  const auto refuse = [&](const std::string& from, const std::string& to, const std::string& why) {
    expect_refused([&] { parse_cluster(with(good, from, to), "c.toml"); }, why);
  };
  refuse("memory_gb_per_s = 1", "memory_gb_per_s = 0", "c.toml: device.memory_gb_per_s: expected a number from");
  refuse("gbit_per_s = 8", "gbit_per_s = 0", "links.node.gbit_per_s: expected a number from");
  refuse("gbit_per_s = 8", "gbit_per_s = -1", "got -1");
  refuse("gbit_per_s = 8", "gbit_per_s = nan", "links.node.gbit_per_s");
  refuse("gbit_per_s = 8", "gbit_per_s = inf", "links.node.gbit_per_s");
  refuse("devices = 8", "devices = 1000000", "devices: expected an integer from 1 to 4096, got 1000000");
  refuse("devices_per_node = 4", "devices_per_node = 9", "devices_per_node: expected an integer from 1 to 8, got 9");
  refuse("experts_gflops = 1", "experts_gflops = \"fast\"", "device.experts_gflops: expected a number");
  refuse("experts_gflops = 1", "experts_gflops = [1, 2]", "one for each of the 0 in device.rows, got 2");
  refuse("experts_gflops = 1", "rows = [4, 2]\nexperts_gflops = [1, 2]", "expected ascending numbers, got 2 after 4");
  refuse("experts_gflops = 1", "", "device.experts_gflops: expected a number");
  refuse("[device]", "[device]\ncolour = \"red\"", "device.colour: expected no such key, got \"red\"");
  refuse("[links.network]", "[links.satellite]\ngbit_per_s = 1\n[links.network]",
         "links.satellite: expected no such key");
  refuse("[links.node]", "[links.node]\nlatency_us = 1e12", "links.node.latency_us: expected a number from 0 to");
  refuse("devices = 8", "devices = ", "c.toml: line 1");
  refuse("[device]", "[collectives]\nsum = \"tree\"\n[device]", "expected \"direct\" or \"ring\", got \"tree\"");
  expect_refused([&] { parse_cluster("", "c.toml"); }, "c.toml: expected a table [device], got none");
}

TEST(Cluster, GivesRanksNodes) {
  const Cluster c = parse_cluster(round_cluster(8, 4), "f");
  EXPECT_EQ(nodes_of_ranks(c, 4, 0), std::vector<int>(4));
  EXPECT_EQ(nodes_of_ranks(c, 6, 0), (std::vector<int>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(nodes_of_ranks(c, 2, 2), (std::vector<int>{0, 1}));
  expect_refused([&] { nodes_of_ranks(c, 9, 0); }, "expected at least 1 and at most 8");
  expect_refused([&] { nodes_of_ranks(c, 6, 1); }, "expected 2 to 2 for 6 ranks");
}

}  // namespace
}  // namespace foe
