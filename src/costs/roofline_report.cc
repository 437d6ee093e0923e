#include "costs/roofline_report.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace foe {

Roofline measure_roofline(const ModelConfig& config, const Placement& placement, const WeightFormats& weights,
                          KvType kv, const RooflineFlags& flags) {
  if (flags.context > config.max_position_embeddings)
    fail("--context: expected at most {}, the model's, got {}", config.max_position_embeddings, flags.context);
  ThreadPool pool(flags.threads > 0 ? flags.threads : available_threads());
  Roofline roofline{.context = flags.context, .threads = pool.threads(), .limits = measure_limits(pool), .points = {}};
  for (const int sequences : flags.batches) {
    const DecodeStep step{
        .sequences = sequences, .context = static_cast<double>(flags.context), .weights = weights, .kv = kv};
    RooflinePoint point{.sequences = sequences,
                        .experts_touched = mean_experts_touched(config, sequences),
                        .work = decode_work(config, placement, step)};
    point.seconds = least_seconds(point.work.total(), roofline.limits);
    roofline.points.push_back(point);
  }
  return roofline;
}

void print_roofline(const Roofline& roofline) {
  const MachineLimits& limits = roofline.limits;
  fmt::print(
      "\nthe fastest decode steps that this machine allows, all ranks on it, with {} positions per sequence:\n"
      "{} thread{} read {:.1f} GB/s and do {:.1f} GFLOP/s in f32, {:.1f} Gop/s of integers, measured now; experts "
      "touched are the mean over equally likely selections\n",
      roofline.context, roofline.threads, roofline.threads == 1 ? "" : "s", limits.read_bytes_per_s / 1e9,
      limits.flops_per_s / 1e9, limits.dots_per_s / 1e9);
  fmt::print("{:>6}  {:>15}  {:>10}  {:>8}  {:>9}  {:>10}  {:>13}  {:>9}  {:>10}\n", "batch", "experts touched",
             "weights MB", "KV MB", "Mop", "reading ms", "arithmetic ms", "step ms", "tokens/s");
  for (const RooflinePoint& p : roofline.points) {
    const Work total = p.work.total();
    fmt::print("{:>6}  {:>15.1f}  {:>10.2f}  {:>8.2f}  {:>9.1f}  {:>10.3f}  {:>13.3f}  {:>9.3f}  {:>10.1f}\n",
               p.sequences, p.experts_touched, (total.bytes - p.work.attention.bytes) / 1e6,
               p.work.attention.bytes / 1e6, (total.flops + total.dots) / 1e6,
               1e3 * total.bytes / limits.read_bytes_per_s, 1e3 * arithmetic_seconds(total, limits), 1e3 * p.seconds,
               p.tokens_per_s());
  }
}

nlohmann::json to_json(const Roofline& roofline) {
  const auto work_json = [](const Work& work) {
    return nlohmann::json{{"bytes", work.bytes}, {"flops", work.flops}, {"dots", work.dots}};
  };
  nlohmann::json out{{"context", roofline.context},
                     {"threads", roofline.threads},
                     {"read_bytes_per_second", roofline.limits.read_bytes_per_s},
                     {"flops_per_second", roofline.limits.flops_per_s},
                     {"dots_per_second", roofline.limits.dots_per_s},
                     {"tile_flops_per_second", roofline.limits.tiles.flops_per_s},
                     {"tile_dots_per_second", roofline.limits.tiles.dots_per_s},
                     {"steps", nlohmann::json::array()}};
  for (const RooflinePoint& p : roofline.points)
    out["steps"].push_back({{"batch", p.sequences},
                            {"experts_touched", p.experts_touched},
                            {"projections", work_json(p.work.projections)},
                            {"attention", work_json(p.work.attention)},
                            {"router", work_json(p.work.router)},
                            {"experts", work_json(p.work.experts)},
                            {"head", work_json(p.work.head)},
                            {"total", work_json(p.work.total())},
                            {"reading_s", p.work.total().bytes / roofline.limits.read_bytes_per_s},
                            {"arithmetic_s", arithmetic_seconds(p.work.total(), roofline.limits)},
                            {"seconds", p.seconds},
                            {"tokens_per_second", p.tokens_per_s()}});
  return out;
}

}  // namespace foe
