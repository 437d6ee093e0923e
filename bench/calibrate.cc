#include "bench/calibrate.h"

#include <algorithm>
#include <numeric>

#include "base/clock.h"
#include "base/error.h"
#include "base/rng.h"
#include "bench/comm.h"
#include "bench/kernels.h"
#include "bench/latency.h"
#include "costs/sum_traffic.h"
#include "kernels/attention/attention.h"
#include "sched/scheduler.h"
#include "simulate/step_simulator.h"

namespace foe {
namespace {

constexpr int kContext = 2048;    // positions of a sequence that attention is measured on
constexpr double kNoTime = 1e15;  // per second, of what is not to take any
constexpr std::size_t kShort = 1024, kLong = std::size_t{4} << 20;  // bytes of the vectors of collectives

double median_seconds(double budget, const std::function<void()>& call) {
  std::vector<double> seconds;
  call();
  for (const auto start = Clock::now(); seconds.size() < 5 || seconds_since(start) < budget;) {
    const auto begin = Clock::now();
    call();
    seconds.push_back(seconds_since(begin));
  }
  std::ranges::nth_element(seconds, seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2));
  return seconds[seconds.size() / 2];
}

void measure_products(const CalibrateOptions& options, ThreadPool& pool, DeviceSpeed& device) {
  const ModelConfig& config = options.shape.config;
  const KernelOptions kernels{
      .shape = config, .formats = {options.dtype}, .tokens = {1, 8, 64, 512}, .seconds_per_point = options.seconds};
  bench_kernels(pool, kernels, [&](const KernelPoint& p) {
    const bool of_experts = p.kernel == "experts";
    const double rows =
        of_experts ? static_cast<double>(p.tokens) * config.experts(0).per_token / experts_touched(config, 0, p.tokens)
                   : p.tokens;
    SpeedByRows& speed = of_experts ? device.experts : p.kernel == "token head" ? device.head : device.projections;
    speed.rows.push_back(rows);
    speed.per_s.push_back(p.operations / p.seconds);
  });
  device.router = device.projections;
}

// So many sequences that each run their last `rows` positions.
void measure_attention(const CalibrateOptions& options, ThreadPool& pool, int sequences, int rows,
                       DeviceSpeed& device) {
  const AttentionConfig& a = options.shape.config.heads();
  const KvShape shape{a.kv_heads, a.key_width, a.head_value_width(), options.kv_type, options.attention};
  const int per_sequence = kContext / kKvBlock;
  AlignedBuffer<std::byte> kv(shape.block_bytes() * per_sequence * sequences);
  const int width = std::max(shape.key_width, shape.value_width);
  std::vector<float> noise(static_cast<std::size_t>(kContext) * a.query_heads * width);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<float>(random_normal(1, i % 65536));
  Batch batch;
  std::vector<Piece> pieces;
  for (int s = 0; s < sequences; ++s) {
    std::vector<std::int32_t> blocks(per_sequence);
    std::iota(blocks.begin(), blocks.end(), s * per_sequence);
    Batch context;
    context.add_sequence(std::vector<std::int32_t>(kContext), 0, blocks, Batch::Sample::kNone);
    write_kv(pool, context, shape, noise.data(), noise.data(), kv.data());
    batch.add_sequence(std::vector<std::int32_t>(rows), kContext - rows, blocks, Batch::Sample::kNone);
    pieces.push_back({s * rows, (s + 1) * rows, 0});
  }
  std::vector<float> out(static_cast<std::size_t>(batch.num_tokens()) * a.query_heads * shape.value_width);
  const double seconds = median_seconds(
      options.seconds, [&] { attention(pool, batch, shape, a.query_heads, {}, noise.data(), kv.data(), out.data()); });
  const AttendedKeys keys = attended_keys(batch, pieces, 0, {{1}, {1}});
  const double operations = 2.0 * a.query_heads * (shape.key_width + shape.value_width) * keys.seconds_per_op;
  device.attention.rows.push_back(rows);
  device.attention.per_s.push_back(operations / seconds);
}

// Two layers on one rank under a rung, as `foe bench latency` measures them.
struct OneRank {
  LatencyOptions options;
  std::unique_ptr<Communicator> comm = make_self_comm();

  OneRank(const CalibrateOptions& calibrated, const char* rung) {
    options.shape = calibrated.shape.config;
    options.groups = calibrated.shape.groups;
    set_layers(options.shape, 2);
    options.shape.vocab_size = std::min(options.shape.vocab_size, 4096);
    options.dtype = calibrated.dtype;
    options.kv_type = calibrated.kv_type;
    options.attention = calibrated.attention;
    options.rungs = rungs_of({rung});
    options.threads = calibrated.threads;
    options.most_seconds = 4 * calibrated.seconds + 1;
  }

  double measured(Load load, int tokens) {
    options.loads = {load};
    options.tokens = {tokens};
    return bench_latency(options, *comm, [](const LatencyPoint&) {}).front().seconds;
  }
  double simulated(const DeviceSpeed& device, Load load, int tokens) const {
    Cluster cluster;
    cluster.devices = cluster.per_node = 1;
    cluster.device = device;
    const ModelConfig config = config_of(options.rungs.front(), options.shape, options.groups);
    const RouteSource routes = RouteSource::drawn(config, 1);
    StepSimulator steps({.config = config,
                         .placement = make_placement(config, options.rungs.front().plan, 1),
                         .nodes = {0},
                         .formats = {options.dtype, options.dtype, options.dtype},
                         .kv_type = options.kv_type},
                        cluster, routes);
    const Batch batch = latency_batch(load, tokens, 1, config.vocab_size);
    std::vector<std::int64_t> sequences(batch.num_sequences());
    std::iota(sequences.begin(), sequences.end(), 0);
    return steps.pass(batch, sequences);
  }
};

// A pass, of which `products` and `floats` are what it takes if products run as fast as alone, and if a float takes a
// second.
struct CalibrationPass {
  double measured, products, floats;
};

CalibrationPass measure_pass(OneRank&& rank, DeviceSpeed device) {
  device.floats_per_s = kNoTime;
  const double products = rank.simulated(device, Load::kManyPrompts, 512);
  device.floats_per_s = 1;
  return {rank.measured(Load::kManyPrompts, 512), products, rank.simulated(device, Load::kManyPrompts, 512)};
}

// Of fewer rows reading limits products, and that is as fast within a pass.
void slow_down(SpeedByRows& speed, double times) {
  constexpr double kReading = 8;
  for (std::size_t i = 0; i < speed.rows.size(); ++i)
    if (speed.rows[i] >= kReading) speed.per_s[i] /= times;
}

bool may_be_federated(const CalibrateOptions& options) {
  try {
    config_of(rungs_of({"D foe"}).front(), options.shape.config, options.shape.groups);
    return options.shape.groups > 1;
  } catch (const Error&) {  // the shape has a layer without experts, or others than groups can share
    return false;
  }
}

// Sets what norms and copies take, and what products and attention lose within a pass. A pass of a federation has about
// as many products as one of the model without groups, but norms and copies for each group, which tells the two apart.
// Of a shape that has no groups all that products by themselves do not explain counts as norms and copies.
void measure_pass_speeds(const CalibrateOptions& options, DeviceSpeed& device) {
  device.block_s = 0;
  const CalibrationPass whole = measure_pass(OneRank(options, "B tp"), device);
  double float_s = std::max(0.0, whole.measured - whole.products) / whole.floats;
  if (may_be_federated(options)) {
    const CalibrationPass groups = measure_pass(OneRank(options, "D foe"), device);
    const double apart = whole.products * groups.floats - groups.products * whole.floats;
    float_s = std::clamp((whole.products * groups.measured - groups.products * whole.measured) / apart, 0.0, float_s);
    const double times = std::max(1.0, (whole.measured - float_s * whole.floats) / whole.products);
    for (SpeedByRows* speed : {&device.projections, &device.router, &device.experts, &device.head, &device.attention})
      slow_down(*speed, times);
  }
  device.floats_per_s = std::min(kNoTime, 1 / float_s);
}

// Sets what remains of a pass of one token.
void measure_blocks(const CalibrateOptions& options, DeviceSpeed& device) {
  OneRank rank(options, "B tp");
  DeviceSpeed one = device;
  one.block_s = 1;
  const double none = rank.simulated(device, Load::kDecode, 1), blocks = rank.simulated(one, Load::kDecode, 1) - none;
  device.block_s = std::max(0.0, rank.measured(Load::kDecode, 1) - none) / blocks;
}

void measure_links(Communicator& comm, const CalibrateOptions& options, Cluster& cluster) {
  const std::vector<CommPoint> points =
      bench_comm(comm, {kShort, kLong}, Wire::kF32, options.seconds, [](const CommPoint&) {});
  const auto seconds = [&](const char* collective, std::size_t bytes) {
    return std::ranges::find_if(points,
                                [&](const CommPoint& p) { return p.collective == collective && p.bytes == bytes; })
        ->ours;
  };
  const auto speed = [&](const char* collective, double bytes) {
    const double more = seconds(collective, kLong) - seconds(collective, kShort);
    return more > 0 ? std::min(kNoTime, bytes / more) : kNoTime;
  };
  cluster.sum_s = seconds("sum", kShort);
  cluster.all_to_all_s = seconds("all-to-all", kShort);
  cluster.broadcast_s = cluster.gather_s = cluster.message_s = seconds("broadcast", kShort);
  std::vector<int> begin(comm.size() + 1);
  std::iota(begin.begin(), begin.end(), 0);
  const SumTraffic sum = sum_traffic(SumPlan(begin), comm.nodes(), comm.rank(), kLong / sizeof(float));
  LinkSpeed& link = comm.nodes().back() > 0 ? cluster.network : cluster.node;
  link.bytes_per_s = speed("all-to-all", static_cast<double>(kLong) * (comm.size() - 1));
  link.sum_bytes_per_s = speed("sum", static_cast<double>(sum.bytes));
}

// Plans steps of decoding sequences and packs them for the broadcast.
double step_seconds(double budget) {
  constexpr int kSequences = 16;
  Scheduler scheduler({.kv_blocks = 1 << 14, .max_sequences = kSequences, .max_positions = 1 << 20});
  for (int id = 0; id < kSequences; ++id) {
    Request request{.id = id, .prompt = {1, 2, 3}, .output = {}, .max_tokens = 1 << 14, .stop_ids = {}, .sampling = {}};
    scheduler.add(std::move(request));
  }
  return median_seconds(budget / 4, [&] {
    const ScheduledStep step = scheduler.next();
    if (encode(step.batch).empty()) fail("calibrate: expected a step, got none");
    scheduler.commit(std::vector<SampledToken>(step.rows.size(), SampledToken{7}));
  });
}

}  // namespace

Cluster calibrate(const CalibrateOptions& options, Communicator& comm,
                  const std::function<void(const std::string&)>& progress) {
  const int ranks = comm.size(), nodes = comm.nodes().back() + 1;
  if (nodes > 1 && nodes < ranks)
    fail("calibrate: expected all ranks on one node, or each on its own, got {} ranks on {} nodes", ranks, nodes);
  const auto next = [&](const char* what) {
    meet(comm);
    if (comm.rank() == 0) progress(what);
  };
  ThreadPool pool(options.threads);
  Cluster cluster;
  cluster.devices = ranks;
  cluster.per_node = nodes > 1 ? 1 : ranks;
  cluster.node = {.bytes_per_s = 1e10, .sum_bytes_per_s = 1e10};  // that no ranks use, if there is one on a node
  cluster.network = cluster.node;
  next("reading memory");
  cluster.device.bytes_per_s = measure_read_bandwidth(pool);
  next("products");
  measure_products(options, pool, cluster.device);
  next("attention");
  measure_attention(options, pool, 8, 1, cluster.device);
  for (const int rows : {16, 128, 512}) measure_attention(options, pool, 1, rows, cluster.device);
  next("two layers on one rank");
  measure_pass_speeds(options, cluster.device);
  measure_blocks(options, cluster.device);
  next("collectives");
  if (ranks > 1) measure_links(comm, options, cluster);
  cluster.step_s = step_seconds(options.seconds);
  return cluster;
}

}  // namespace foe
