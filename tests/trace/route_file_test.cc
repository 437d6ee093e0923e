// What a record says is read, and a file that is not a record is refused with what was expected and what was found.
#include "trace/route_file.h"

#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "record.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

RouteFile open(const std::string& bytes) {
  return RouteFile(std::as_bytes(std::span(bytes)), "r");
}

// Of a changed record: the message of the refusal to read it or one of its sequences.
std::string refusal(const std::function<void(Record&)>& change) {
  Record record;
  change(record);
  const std::string bytes = record.bytes();
  return error_of([&] {
    const RouteFile file = open(bytes);
    for (const std::int64_t sequence : file.sequences()) file.route(sequence);
  });
}

TEST(RouteFile, ReadsARecord) {
  const std::string bytes = Record().bytes();
  const RouteFile file = open(bytes);
  EXPECT_EQ(file.tokens(), 5);
  EXPECT_EQ(file.form(), (RouteForm{.layers = 2, .entries = 3}));
  EXPECT_EQ(file.origin(), (RouteOrigin{"0123456789abcdef", "ep", 2, {6, 6}}));
  EXPECT_THAT(file.sequences(), ElementsAre(3, 8));
  const SequenceRoute route = file.route(8);
  EXPECT_EQ(route.model, "0123456789abcdef");
  EXPECT_THAT(route.tokens, ElementsAre(5, 9));
  EXPECT_EQ(route.route.tokens(), 2);
  EXPECT_THAT(route.route.experts_TLK, ElementsAre(0, 1, 2, 3, 4, 5, 2, 3, 4, 0, -1, -1));
  EXPECT_THAT(route.route.weights_TLK, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 0.5f, 0, 0));
  EXPECT_EQ(file.route(3).route.tokens(), 3);
}

TEST(RouteFile, TheOnlySequenceNeedsNoNumber) {
  const std::string several = Record().bytes();
  EXPECT_EQ(error_of([&] { open(several).route(); }), "r: expected the record of one sequence, got 2: 3, ..., 8");
  EXPECT_EQ(error_of([&] { open(several).route(4); }), "r: expected sequence 4 to be in it, got 2 others");
  Record record;
  record.sequences = {3, 3, 3, 3, 3};
  record.positions = {0, 1, 2, 3, 4};
  const std::string one = record.bytes();
  EXPECT_EQ(open(one).route().tokens.size(), 5u);
  const Record none{
      .sequences = {}, .steps = {}, .positions = {}, .tokens = {}, .owners = {}, .experts = {}, .weights = {}};
  const std::string empty = none.bytes();
  EXPECT_EQ(open(empty).tokens(), 0);
  EXPECT_EQ(error_of([&] { open(empty).route(); }), "r: expected the record of one sequence, got 0");
}

TEST(RouteFile, RefusesOtherFiles) {
  EXPECT_THAT(error_of([] { open("no record"); }), StartsWith("r: "));
  const std::string weights = safetensors_bytes(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", 4);
  EXPECT_EQ(error_of([&] { open(weights); }), "r: expected a record of routes with metadata foe_routes, got none");
  EXPECT_EQ(refusal([](Record& r) { r.metadata["foe_routes"] = "2"; }),
            "r: expected version 1 of a record of routes, got 2");
  const std::string whole = Record().bytes();
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, whole.size() / 2, whole.size() - 1})
    EXPECT_THAT(error_of([&] { open(whole.substr(0, size)); }), StartsWith("r: ")) << size;
}

TEST(RouteFile, ChecksItsMetadata) {
  for (const char* key : {"model", "plan", "ranks", "layers", "entries", "experts"})
    EXPECT_EQ(refusal([&](Record& r) { r.metadata.erase(key); }),
              fmt::format("r: expected a record of routes with metadata {}, got none", key));
  EXPECT_EQ(refusal([](Record& r) { r.metadata["layers"] = "-2"; }),
            "r: metadata layers: expected numbers from 1 to 65536, got '-2'");
  EXPECT_EQ(refusal([](Record& r) { r.metadata["entries"] = "3x"; }),
            "r: metadata entries: expected numbers from 1 to 65536, got '3x'");
  EXPECT_EQ(refusal([](Record& r) { r.metadata["entries"] = "3,3"; }),
            "r: metadata entries: expected one number, got 2");
  EXPECT_EQ(refusal([](Record& r) { r.metadata["experts"] = "6,6,6"; }),
            "r: expected numbers of experts of 2 layers, got 3");
  EXPECT_EQ(refusal([](Record& r) { r.metadata["experts"] = "6,"; }),
            "r: metadata experts: expected numbers from 1 to 1048576, got '6,'");
  EXPECT_EQ(refusal([](Record& r) { r.metadata["layers"] = "3", r.metadata["experts"] = "6,6,6"; }),
            "r: experts: expected shape [5, 3, 3], got [5, 2, 3]");
}

TEST(RouteFile, ChecksTypesAndShapes) {
  for (const char* name : {"sequences", "positions", "tokens", "steps", "owners", "experts", "weights"})
    EXPECT_THAT(refusal([&](Record& r) { r.names[name] = ""; }),
                EndsWith(name == std::string("sequences") ? std::string("with a tensor sequences, got none")
                                                          : fmt::format("with a tensor {}, got none", name)));
  EXPECT_EQ(refusal([](Record& r) { r.types["experts"] = "U32"; }), "r: experts: expected type I32, got U32");
  EXPECT_EQ(refusal([](Record& r) { r.types["weights"] = "I32"; }), "r: weights: expected type F32, got I32");
  EXPECT_EQ(refusal([](Record& r) { r.types["steps"] = "F64"; }), "r: steps: expected type I64, got F64");
  EXPECT_EQ(refusal([](Record& r) {
              r.shapes["experts"] = {2, 5, 3};
            }),
            "r: experts: expected shape [5, 2, 3], got [2, 5, 3]");
  EXPECT_EQ(refusal([](Record& r) { r.shapes["weights"] = {30}; }), "r: weights: expected shape [5, 2, 3], got [30]");
  EXPECT_EQ(refusal([](Record& r) {
              r.owners.pop_back();
              r.shapes["owners"] = {4};
            }),
            "r: owners: expected shape [5], got [4]");
  EXPECT_EQ(refusal([](Record& r) { r.names["steps"] = "scores"; }),
            "r: expected a record of routes with a tensor steps, got none");
}

TEST(RouteFile, ChecksTheOrderOfTokens) {
  EXPECT_EQ(refusal([](Record& r) { std::swap(r.sequences[0], r.sequences[4]); }),
            "r: token 1: expected sequences to ascend, got 3 after 8");
  EXPECT_EQ(refusal([](Record& r) { r.positions[1] = 0; }), "r: token 1: expected positions to ascend, got 0 after 0");
  EXPECT_EQ(refusal([](Record& r) { r.positions[0] = -1; }), "r: token 0: expected a position of at least 0, got -1");
  EXPECT_EQ(refusal([](Record& r) { r.positions[2] = 3; }),
            "r: sequence 3: expected position 2, got 3: some are missing");
  EXPECT_EQ(refusal([](Record& r) {
              r.positions = {0, 1, 2, 1, 2};
            }),
            "r: sequence 8: expected position 0, got 1: some are missing");
}

TEST(RouteFile, ChecksExpertsAndWeights) {
  const auto expert = [](std::size_t at, std::int32_t value) {
    return refusal([=](Record& r) { r.experts[at] = value; });
  };
  const auto weight = [](std::size_t at, float value) { return refusal([=](Record& r) { r.weights[at] = value; }); };
  EXPECT_EQ(expert(2, 6), "r: position 0, layer 0: expected experts in [0, 6), got 6");
  EXPECT_EQ(expert(11, 1), "r: position 1, layer 1: expected ascending experts, each once, got 1 after 1");
  EXPECT_EQ(expert(10, 5), "r: position 1, layer 1: expected ascending experts, each once, got 2 after 5");
  const char* const kBehind = "expected -1 behind the last expert, or -2 in place of all, got ";
  EXPECT_EQ(expert(8, -2), fmt::format("r: position 1, layer 0: {}-2", kBehind));
  EXPECT_EQ(expert(4, -1), fmt::format("r: position 0, layer 1: {}-1", kBehind));
  EXPECT_EQ(expert(0, -3), fmt::format("r: position 0, layer 0: {}-3", kBehind));
  EXPECT_THAT(expert(7, -1), "no error");  // one expert less
  EXPECT_EQ(expert(6, -1), "r: position 1, layer 0: expected experts before -1, got 3 behind it");
  EXPECT_EQ(expert(5, 3), "r: position 0, layer 1: expected experts before -2, got 3 behind it");
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  const char* const kFinite = "expected a weight that is finite and not negative, got ";
  EXPECT_EQ(weight(1, kNaN), fmt::format("r: position 0, layer 0: {}nan", kFinite));
  EXPECT_EQ(weight(9, kInfinity), fmt::format("r: position 1, layer 1: {}inf", kFinite));
  EXPECT_EQ(weight(29 - 5, -0.5f), fmt::format("r: position 1, layer 0: {}-0.5", kFinite));
}

TEST(RouteFile, SurvivesRandomChanges) {
  const std::string whole = Record().bytes();
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = whole;
    for (int j = 0; j < 1 + i % 3; ++j) {
      const std::uint64_t random = random_bits(i, j);
      bytes[random % bytes.size()] = static_cast<char>(random >> 40);
    }
    refused += error_of([&] {
                 const RouteFile file = open(bytes);
                 for (const std::int64_t sequence : file.sequences()) file.route(sequence);
               }) != "no error";
  }
  EXPECT_GT(refused, 1000);
  EXPECT_LT(refused, 3000);
}

}  // namespace
}  // namespace foe
