// Runs steps on a simulated cluster: what forward() and the engine do, with formulas in place of kernels and links.
// What each rank sends is counted as a Communicator counts it, to the byte; how long it takes follows from a Cluster.
//
// Each rank has a clock. In a stage of a step it goes on by what its device computes; an exchange begins when the last
// of its ranks is ready. So waiting for a slower rank, for a stage before and for the network shows as it would.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <vector>

#include "comm/communicator.h"
#include "placement/expert_nodes.h"
#include "placement/step_parts.h"
#include "simulate/cluster.h"
#include "simulate/device_seconds.h"
#include "simulate/link_seconds.h"
#include "simulate/route_counts.h"

namespace foe {

// What runs on a cluster, and how its ranks share it.
struct SimulatedModel {
  ModelConfig config;
  Placement placement;
  std::vector<int> nodes;  // of the ranks
  WeightFormats formats = {};
  KvType kv_type = KvType::kBF16;
  ExchangeOptions exchange = {};
  bool threads = false;  // broadcast_traffic()
};

// Seconds of one rank, by what it did.
struct RankSeconds {
  double attention = 0, experts = 0, head = 0;  // arithmetic, with norms, router and copies
  double host = 0;                              // of rank 0: planning steps and choosing tokens
  double moving = 0, waiting = 0;               // in exchanges

  double total() const { return attention + experts + head + host + moving + waiting; }
};

class StepSimulator {
 public:
  // `routes` must outlive this. Throws Error for what cannot run or be counted.
  StepSimulator(SimulatedModel model, const Cluster& cluster, const RouteSource& routes);

  const SimulatedModel& model() const { return model_; }
  const Cluster& cluster() const { return cluster_; }
  // The clock of rank 0, in seconds.
  double now() const { return clock_[0]; }
  // Nothing happens until then.
  void wait_until(double seconds);

  // Rank 0 begins a step, as Engine::step() does: it broadcasts the batch, which must say how many candidates each row
  // wants, and runs its layers. `sequences` has a number for each sequence of the batch, by which it is routed.
  void begin(const Batch& batch, std::span<const std::int64_t> sequences);
  // Rank 0 ends the oldest step under way: it has the logits, and chooses tokens.
  void end();
  // Runs one forward pass alone, as `foe bench latency` does: without the engine, from when all ranks are ready.
  // Returns the seconds until the last rank has run its layers, without the token head.
  double pass(const Batch& batch, std::span<const std::int64_t> sequences);

  const std::vector<CommCounters>& sent() const { return sent_; }  // by rank
  const std::vector<RankSeconds>& seconds() const { return seconds_; }

 private:
  // The ranks that run the same layers.
  struct Stage {
    std::vector<int> ranks;
    std::vector<StepStage> steps;
    std::vector<std::vector<int>> sums, members;  // ranks that add together; ranks of a group, by member
  };
  struct Exchange {
    CommCounter CommCounters::*counter = nullptr;   // null: there is none
    std::span<const std::vector<int>> groups = {};  // each exchanges among its own
    std::vector<double> seconds = {};               // by group
    std::vector<double> end = {};                   // by group, if it goes on beside arithmetic
  };
  // A micro-batch, or a half of it.
  struct Part {
    const Batch* batch;
    std::span<const std::int64_t> sequences;
    std::vector<Piece> pieces = {};                    // ordered by member
    std::vector<int> tokens = {}, sampled = {};        // by member
    bool only_sampled = false;                         // after the last attention
    std::vector<std::vector<AttendedKeys>> keys = {};  // by member, of each window
    LayerCounts counts = {};                           // of the layer that runs
    Exchange pending = {};

    int rows(int member) const { return only_sampled ? sampled[member] : tokens[member]; }
    std::int64_t sequence(const Piece& piece) const;
  };
  // What comes to rank 0 of a step that has begun.
  struct Flight {
    int rows = 0;                       // whose tokens are chosen
    std::vector<double> gathers = {};   // when each has come from all ranks
    std::vector<double> messages = {};  // or when each message has come
    double gather_s = 0;                // how long one moves data on rank 0
  };

  Part make_part(const Batch& batch, std::span<const std::int64_t> sequences, const StepParts& parts, std::int64_t i);
  void run(const Batch& batch, std::span<const std::int64_t> sequences);
  void run_stage(const Stage& stage, std::span<Part> halves);
  void begin_step(const Stage& stage, const StepStage& step, Part& part);
  void finish_step(const StepStage& step, Part& part);
  void count_routes(int layer, Part& part) const;
  void compute(const StepStage& step, int rank, const Part& part, bool projects, bool attends);
  void advance(int rank, double seconds, double RankSeconds::*kind);

  // step_exchanges.cc
  void broadcast(const Batch& batch);
  void start_exchange(const Stage& stage, const StepStage& step, Part& part);
  void start_sum(const Stage& stage, const std::vector<int>& begin, Wire wire, std::size_t floats_of_row, Part& part);
  void start_all_to_all(const Stage& stage, const StepStage& step, Part& part);
  void start(std::span<const std::vector<int>> groups, std::span<const ExchangeForm> forms, double call_s,
             CommCounter CommCounters::*counter, Part& part);
  void finish_exchange(Part& part);
  void receive_rows(const Stage& stage, std::span<const Part> halves);
  void pass_rows(const Stage& stage, std::span<const Part> halves);
  double send(int from, int to, std::uint64_t bytes);
  void gather(const Batch& batch, std::span<const Part> parts, Flight& flight);
  void gather_bytes(std::span<const std::uint64_t> bytes, Flight& flight);
  // The rank is ready for an exchange that begins at `begin` and ends at `end`.
  void pass_time(int rank, double begin, double end, CommCounter& counter);
  const std::vector<SumTraffic>& traffic_of(const std::vector<int>& ranks, const std::vector<int>& begin,
                                            std::size_t count, Wire wire);

  SimulatedModel model_;
  Cluster cluster_;
  RouteCounter counter_;
  std::vector<DeviceSeconds> devices_;
  std::vector<Stage> stages_;
  std::vector<int> windows_, window_of_layer_;
  std::vector<const std::vector<int>*> expert_terms_;  // by layer: Placement::expert_begin, of the first layer like it
  std::vector<double> clock_, exchange_clock_, port_free_;  // by rank
  std::vector<double> arrival_;                             // by rank: of the rows of the part that it takes next
  std::vector<double> layers_end_;                          // by rank: when its token head began
  std::vector<Flow> flows_;
  std::vector<CommCounters> sent_;
  std::vector<RankSeconds> seconds_;
  std::deque<Flight> flights_;
  // sum_traffic() of the ranks of one sum, by what it depends on.
  struct SumKey {
    const std::vector<int>* begin;
    int first_rank;
    std::size_t count;
    Wire wire;
    bool operator==(const SumKey&) const = default;
  };
  struct SumHash {
    std::size_t operator()(const SumKey& key) const;
  };
  std::unordered_map<SumKey, std::vector<SumTraffic>, SumHash> sums_;
};

}  // namespace foe
