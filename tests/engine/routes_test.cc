// A replay has the bits of its recording: on any plan and number of ranks, in any chunks, whatever the scheduler does.
#include <algorithm>
#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/configs.h"
#include "engine/with_engine.h"
#include "model/random_model.h"
#include "trace/route_file.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

using testing::HasSubstr;

// Where and how a job runs.
struct Job {
  Plan plan = Plan::kTp;
  int ranks = 1;
  int steps = 1;  // each sequence runs in so many chunks
  bool overlap = false;
  RecordOptions record = {};
  std::vector<int> nodes = {};  // of the ranks; empty: one node
  bool split = false;           // PlanChoice::split_sequences
};

std::string describe(const Job& job) {
  return fmt::format("{} on {} in {} steps{}{}", to_string(job.plan), job.ranks, job.steps,
                     job.overlap ? ", halves" : "", job.split ? ", split" : "");
}

// Together enough for two halves of a step (kOverlapTokens).
constexpr int kLengths[] = {60, 17, 90};
constexpr int kSequences = static_cast<int>(std::size(kLengths));
using Routes = std::vector<SequenceRoute>;  // of each sequence; none: the router decides

// All logits of each sequence, in one batch.
using Logits3 = std::vector<std::vector<float>>;

Batch batch_of(int step, const Job& job, int vocab, int owners, const Routes& routes) {
  Batch batch;
  for (int s = 0, block = 0; s < kSequences; ++s) {
    const std::vector<std::int32_t> tokens = random_tokens(kLengths[s], vocab, s);
    std::vector<std::int32_t> blocks;
    for (int i = 0; i * kKvBlock < kLengths[s]; ++i) blocks.push_back(block++);
    const int begin = kLengths[s] * step / job.steps, end = kLengths[s] * (step + 1) / job.steps;
    batch.add_sequence(std::span(tokens).subspan(begin, end - begin), begin, blocks, Batch::Sample::kAll,
                       s * owners / kSequences);
    if (!routes.empty()) batch.route_last_sequence(routes[s].route);
  }
  return batch;
}

Logits3 run(const RandomModel& folder, const Job& job, const Routes& routes, const std::string& record = "") {
  Logits3 all(kSequences);
  const EngineOptions options{.threads = 1,
                              .max_batch_tokens = 256,
                              .kv_tokens = 256,
                              .max_sampled = 256,
                              .exchange = {.overlap = job.overlap},
                              .record = job.record};
  std::optional<RouteRecord> file;
  if (!record.empty()) file.emplace(record);
  const std::vector<int> nodes = job.nodes.empty() ? std::vector<int>(job.ranks) : job.nodes;
  with_engine(folder.path(), {job.plan, {}, 0, job.split}, nodes, options, [&](Engine& engine) {
    std::optional<RouteWriter> writer;
    if (file) writer.emplace(record, engine.route_form(), route_origin(engine.model()), 0);
    if (file) engine.record_to(&*writer);
    const int vocab = engine.model().config.vocab_size;
    for (int step = 0; step < job.steps; ++step) {
      const Batch batch = batch_of(step, job, vocab, engine.model().placement.owners(), routes);
      const std::span<const float> logits = engine.run(batch);
      for (int s = 0; s < kSequences; ++s)
        all[s].insert(all[s].end(), logits.begin() + batch.sequence_begin[s] * vocab,
                      logits.begin() + batch.sequence_begin[s + 1] * vocab);
    }
  });
  if (file) file->finish();
  return all;
}

Routes routes_in(const std::string& path) {
  const TensorFile file(path);
  const RouteFile record(file.bytes(), path);
  EXPECT_EQ(record.sequences(), (std::vector<std::int64_t>{0, 1, 2}));
  Routes routes;
  for (const std::int64_t sequence : record.sequences()) routes.push_back(record.route(sequence));
  return routes;
}

Routes record(const RandomModel& folder, Job job, Logits3& logits, const Routes& routes = {}) {
  const TempFolder place;
  job.record.routes = true;
  logits = run(folder, job, routes, place / "routes");
  return routes_in(place / "routes");
}

void expect_equal(const Routes& a, const Routes& b, const std::string& where) {
  ASSERT_EQ(a.size(), b.size()) << where;
  for (std::size_t s = 0; s < a.size(); ++s) {
    EXPECT_EQ(a[s].model, b[s].model) << where;
    EXPECT_EQ(a[s].tokens, b[s].tokens) << where;
    EXPECT_EQ(a[s].route.experts_TLK, b[s].route.experts_TLK) << where;
    EXPECT_EQ(a[s].route.weights_TLK, b[s].route.weights_TLK) << where;
  }
}

// Another route that the model can run: where it is possible, a token has the expert before its first one, of the same
// kind and group, or loses its last one; and weights are others.
Routes changed(Routes routes, const ModelConfig& config) {
  for (SequenceRoute& sequence : routes) {
    Route& route = sequence.route;
    const int K = route.entries;
    for (std::size_t at = 0; at < route.experts_TLK.size(); at += K) {
      const ExpertTable table = expert_table(config, static_cast<int>(at / K) % route.layers);
      std::int32_t* experts = route.experts_TLK.data() + at;
      float* weights = route.weights_TLK.data() + at;
      if (experts[0] < 0) continue;
      const int id = experts[0];
      if (id > 0 && table.kind_of(id) == table.kind_of(id - 1) && table.group_of(id) == table.group_of(id - 1))
        --experts[0];
      const auto count = std::find_if(experts, experts + K, [](std::int32_t e) { return e < 0; }) - experts;
      if (at % 3 == 0 && count > 1) experts[count - 1] = kNoExpert, weights[count - 1] = 0;
      for (int i = 0; i < K; ++i) weights[i] *= 0.75f;
    }
  }
  return routes;
}

struct Variant {
  std::string name;
  ModelConfig config;
};

void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

std::vector<Variant> variants() {
  ModelConfig moge = small_config();
  moge.expert_groups = 4;
  std::vector<Variant> all = {
      {"moe", small_config()}, {"moge", moge}, {"foe2", small_federated(2)}, {"foe4", small_federated(4)}};
  for (const NamedConfig& routing : routing_configs()) all.push_back({routing.name, routing.config});
  return all;
}

std::vector<Job> jobs_of(const ModelConfig& config) {
  if (!config.federated())
    return {{Plan::kTp, 1, 5},
            {Plan::kTp, 3, 4, true},
            {Plan::kEp, 2, 1, true},
            {Plan::kEp, 3, 4},
            {.plan = Plan::kEp, .ranks = 2, .overlap = true, .split = true},
            {.plan = Plan::kEp, .ranks = 3, .steps = 2, .split = true},
            {Plan::kPp, 3}};
  const int H = config.expert_groups;
  return {{Plan::kFoe, 1, 5},
          {Plan::kFoe, 2, 1, true},
          {Plan::kFoe, 2 * H, 4},
          {Plan::kFoe, 2 * H + 1, 1, true},
          {.plan = Plan::kFoe, .ranks = 2 * H, .steps = 2, .split = true},
          {Plan::kPp, 2, 3}};
}

class RoutesTest : public testing::TestWithParam<Variant> {};

TEST_P(RoutesTest, AReplayHasTheBitsOfItsRecordingWhereverBothRun) {
  const RandomModel folder(GetParam().config);
  const Plan plan = default_plan(folder.config());
  const Logits3 expected = run(folder, {plan}, {});
  Logits3 logits;
  const Routes routes = record(folder, {plan}, logits);
  EXPECT_EQ(logits, expected);
  const Routes others = changed(routes, folder.config());
  const Logits3 other = run(folder, {plan}, others);
  for (int s = 0; s < kSequences; ++s) EXPECT_NE(other[s], expected[s]);
  for (const Job& job : jobs_of(folder.config())) {
    const std::string where = describe(job);
    expect_equal(record(folder, job, logits), routes, where);
    EXPECT_EQ(logits, expected) << where;
    EXPECT_EQ(run(folder, job, routes), expected) << where;
    // What the router would not choose shows that the route is what decides, and a record has what decided.
    expect_equal(record(folder, job, logits, others), others, where);
    EXPECT_EQ(logits, other) << where;
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, RoutesTest, testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name; });

TEST(Routes, RanksReportInTheOrderOfTheirMembersAndRankZeroMayBeIdle) {
  const RandomModel folder(small_federated(2));
  Logits3 expected, logits;
  const Routes routes = record(folder, {Plan::kFoe}, expected);
  for (const std::vector<int>& nodes : {std::vector<int>{0, 1, 1, 1, 1}, {0, 1, 0, 1, 2, 2}}) {
    const Placement placement = make_placement(folder.config(), Plan::kFoe, static_cast<int>(nodes.size()), nodes);
    const std::vector<int> reporters = route_reporters(placement);
    EXPECT_TRUE(placement.ranks[0].idle() || !std::ranges::is_sorted(reporters));
    const Job job{.plan = Plan::kFoe, .steps = 2, .nodes = nodes};
    expect_equal(record(folder, job, logits, routes), routes, describe(job));
    EXPECT_EQ(logits, expected);
  }
}

TEST(Routes, ARecordSaysWhereTokensRan) {
  const RandomModel folder(small_config());
  const TempFolder place;
  run(folder, {Plan::kEp, 3, 2, false, {true, true, true}}, {}, place / "r");
  const TensorFile file(place / "r");
  const RouteFile record(file.bytes(), "r");
  const auto self = make_self_comm();
  EXPECT_EQ(record.origin(),
            (RouteOrigin{load_model(folder.path(), Plan::kTp, *self).identity, "ep", 3, {16, 16, 16}}));
  EXPECT_EQ(record.form(), (RouteForm{.layers = 3, .entries = 4, .scores = 16, .inputs = 48}));
  const auto owners = file.bytes(*file.find("owners")), steps = file.bytes(*file.find("steps"));
  for (int s = 0, t = 0; s < kSequences; ++s)
    for (int position = 0; position < kLengths[s]; ++position, ++t) {
      std::int32_t owner;
      std::int64_t step;
      std::memcpy(&owner, owners.data() + 4 * t, 4);
      std::memcpy(&step, steps.data() + 8 * t, 8);
      EXPECT_EQ(owner, s);
      EXPECT_EQ(step, position < kLengths[s] / 2 ? 0 : 1);
    }
}

// --- with a scheduler ---

constexpr int kRequests = 6;

std::vector<Request> requests(const std::map<std::int64_t, SequenceRoute>& routes = {}) {
  std::vector<Request> all;
  for (int id = 1; id <= kRequests; ++id) {
    Request r;
    r.id = id;
    std::vector<std::int32_t> prompt = random_tokens(20, 70, 7);  // all begin alike
    const std::vector<std::int32_t> own = random_tokens(5 + 6 * id, 70, id);
    prompt.insert(prompt.end(), own.begin(), own.end());
    r.prompt = std::move(prompt);
    r.max_tokens = 30 + 3 * id;
    if (routes.contains(id)) r.route = std::make_shared<const SequenceRoute>(routes.at(id));
    all.push_back(std::move(r));
  }
  return all;
}

struct Replay {
  std::map<std::int64_t, std::vector<std::int32_t>> texts;
  SchedulerStats stats;
};

Replay generate(const RandomModel& folder, Plan plan, int ranks, int kv_tokens, std::vector<Request> all,
                const std::string& record = "") {
  Replay outcome;
  const EngineOptions options{
      .max_batch_tokens = 24, .max_sequences = 4, .kv_tokens = kv_tokens, .record = {.routes = !record.empty()}};
  std::optional<RouteRecord> file;
  if (!record.empty()) file.emplace(record);
  with_engine(folder.path(), plan, ranks, options, [&](Engine& engine) {
    std::optional<RouteWriter> writer;
    if (file) writer.emplace(record, engine.route_form(), route_origin(engine.model()), 0);
    if (file) engine.record_to(&*writer);
    for (Request& request : all) engine.submit(std::move(request));
    while (!engine.idle())
      for (const TokenEvent& event : engine.step()) outcome.texts[event.id].push_back(event.token);
    outcome.stats = engine.scheduler().stats();
  });
  if (file) file->finish();
  return outcome;
}

std::map<std::int64_t, SequenceRoute> all_routes(const std::string& path) {
  const TensorFile file(path);
  const RouteFile record(file.bytes(), path);
  std::map<std::int64_t, SequenceRoute> routes;
  for (const std::int64_t id : record.sequences()) routes[id] = record.route(id);
  return routes;
}

TEST(Routes, ARecordDoesNotDependOnTheScheduler) {
  const RandomModel folder(small_config());
  const TempFolder place;
  const Replay calm = generate(folder, Plan::kTp, 1, 512, requests(), place / "calm");
  const Replay pressed = generate(folder, Plan::kEp, 2, 112, requests(), place / "pressed");
  EXPECT_EQ(calm.stats.preemptions, 0);
  EXPECT_GT(pressed.stats.preemptions, 0);
  EXPECT_EQ(pressed.texts, calm.texts);
  const auto routes = all_routes(place / "calm"), others = all_routes(place / "pressed");
  ASSERT_EQ(routes.size(), std::size_t{kRequests});
  ASSERT_EQ(others.size(), std::size_t{kRequests});
  const std::vector<Request> all = requests();
  for (int id = 1; id <= kRequests; ++id) {
    const SequenceRoute& route = routes.at(id);
    // The prompt, although others begin alike, and all output tokens but the last, which is not fed back.
    std::vector<std::int32_t> tokens = all[id - 1].prompt.tokens();
    tokens.insert(tokens.end(), calm.texts.at(id).begin(), calm.texts.at(id).end() - 1);
    EXPECT_EQ(route.tokens, tokens);
    EXPECT_EQ(others.at(id).tokens, tokens);
    EXPECT_EQ(others.at(id).route.experts_TLK, route.route.experts_TLK);
    EXPECT_EQ(others.at(id).route.weights_TLK, route.route.weights_TLK);
    // The last layer runs only rows that are sampled.
    const int prompt = static_cast<int>(all[id - 1].prompt.size());
    for (int t = 0; t < route.route.tokens(); ++t)
      EXPECT_EQ(route.route.experts_TLK[(t * 3 + 2) * 4] == kNotRun, t < prompt - 1) << t;
  }
}

TEST(Routes, RequestsAreRoutedByTheirRecordsAndOthersAreNot) {
  const RandomModel folder(small_config());
  const TempFolder place;
  const Replay calm = generate(folder, Plan::kTp, 1, 512, requests(), place / "calm");
  std::map<std::int64_t, SequenceRoute> routes = all_routes(place / "calm");
  // The same routes, only of the prompt in one case; for the requests 2 and 5 others.
  SequenceRoute& shorter = routes.at(4);
  const std::size_t prompt = requests()[3].prompt.size();
  shorter.tokens.resize(prompt);
  shorter.route.experts_TLK.resize(prompt * 12);
  shorter.route.weights_TLK.resize(prompt * 12);
  routes.erase(1);
  for (const std::int64_t id : {2, 5}) routes.at(id) = changed({routes.at(id)}, folder.config()).front();
  const Replay forced = generate(folder, Plan::kTp, 1, 512, requests(routes));
  for (const int id : {1, 3, 4, 6}) EXPECT_EQ(forced.texts.at(id), calm.texts.at(id)) << id;
  for (const int id : {2, 5}) EXPECT_NE(forced.texts.at(id), calm.texts.at(id)) << id;
  // Under pressure, on other ranks, and recorded at the same time.
  const Replay pressed = generate(folder, Plan::kEp, 3, 112, requests(routes), place / "forced");
  EXPECT_GT(pressed.stats.preemptions, 0);
  EXPECT_EQ(pressed.texts, forced.texts);
  for (const auto& [id, route] : routes) {
    const SequenceRoute again = all_routes(place / "forced").at(id);
    ASSERT_GE(again.route.experts_TLK.size(), route.route.experts_TLK.size());
    EXPECT_TRUE(
        std::equal(route.route.weights_TLK.begin(), route.route.weights_TLK.end(), again.route.weights_TLK.begin()));
  }
}

TEST(Routes, RefusesWhatIsNotOfThisModelOrPrompt) {
  const RandomModel folder(small_config());
  const TempFolder place;
  generate(folder, Plan::kTp, 1, 512, requests(), place / "r");
  const SequenceRoute good = all_routes(place / "r").at(1);
  with_engine(folder.path(), Plan::kTp, 1, {}, [&](Engine& engine) {
    const auto refusal = [&](auto&& change) {
      SequenceRoute route = good;
      change(route);
      Request request = requests()[0];
      request.route = std::make_shared<const SequenceRoute>(std::move(route));
      const std::string message = error_of([&] { engine.submit(std::move(request)); });
      engine.abort(1);
      return message;
    };
    EXPECT_EQ(refusal([](SequenceRoute&) {}), "no error");
    EXPECT_EQ(refusal([](SequenceRoute& r) { r.model = "other"; }),
              fmt::format("route: expected a record of this model, whose digest is {}, got one of other", good.model));
    EXPECT_EQ(refusal([](SequenceRoute& r) { r.tokens[2] = 69 - r.tokens[2]; }),
              fmt::format("route: position 2: expected a record of the prompt's token {}, got one of token {}",
                          good.tokens[2], 69 - good.tokens[2]));
    EXPECT_EQ(refusal([](SequenceRoute& r) { r.route.layers = 4, r.route.entries = 3; }),
              "route: expected the model's 3 layers of 4 experts, got 4 layers of 3");
    EXPECT_EQ(refusal([](SequenceRoute& r) { r.route.experts_TLK[3] = 16; }),
              "route: position 0, layer 0: expected experts in [0, 16), got 16");
    EXPECT_TRUE(engine.idle());
    Batch batch;
    batch.add_sequence(good.tokens, 0, std::vector<std::int32_t>{0, 1, 2, 3}, Batch::Sample::kLast);
    Route route = good.route;
    route.experts_TLK[0] = route.experts_TLK[1];
    batch.route_last_sequence(route);
    EXPECT_THAT(error_of([&] { engine.run(batch); }), HasSubstr("position 0, layer 0: expected ascending experts"));
  });
}

}  // namespace
}  // namespace foe
