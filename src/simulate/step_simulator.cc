#include "simulate/step_simulator.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace foe {
namespace {

bool ends_layers(const ModelConfig& config, const StepStage& step) {
  return step.kind == StageKind::kAttention && step.layer + 1 == config.num_layers();
}

}  // namespace

std::int64_t StepSimulator::Part::sequence(const Piece& piece) const {
  const auto& begin = batch->sequence_begin;
  return sequences[std::ranges::upper_bound(begin, piece.begin) - begin.begin() - 1];
}

StepSimulator::StepSimulator(SimulatedModel model, const Cluster& cluster, const RouteSource& routes)
    : model_(std::move(model)),
      cluster_(cluster),
      counter_(model_.config, model_.placement, model_.nodes, model_.exchange.dispatch, routes) {
  const Placement& placement = model_.placement;
  const int ranks = static_cast<int>(placement.ranks.size());
  FOE_CHECK(static_cast<int>(model_.nodes.size()) == ranks, "{} nodes of {} ranks", model_.nodes.size(), ranks);
  check_overlap(placement, model_.exchange.overlap);
  for (const Share& share : placement.ranks)
    devices_.emplace_back(model_.config, share, model_.formats, model_.kv_type, cluster_.device);
  stages_.resize(placement.stages);
  for (int rank = 0; rank < ranks; ++rank) {
    const Share& share = placement.ranks[rank];
    if (share.idle()) continue;
    Stage& stage = stages_[share.stage];
    const Range layers{share.stage_layers.begin, std::min(share.stage_layers.end, model_.config.num_layers())};
    if (stage.ranks.empty()) stage.steps = step_stages(model_.config, placement, layers);
    stage.ranks.push_back(rank);
    if (const std::vector<int> sums = ranks_of_sums(placement, rank); sums.front() == rank) stage.sums.push_back(sums);
    if (share.member != 0 || placement.members == 1) continue;
    std::vector<int>& group = stage.members.emplace_back(placement.members);
    for (int r = 0; r < ranks; ++r)
      if (const Share& other = placement.ranks[r];
          !other.idle() && other.stage == share.stage && other.groups.begin == share.groups.begin)
        group[other.member] = r;
  }
  for (int layer = 0; layer < model_.config.num_layers(); ++layer) {
    const int window = model_.config.attention(layer).window;
    window_of_layer_.push_back(static_cast<int>(std::ranges::find(windows_, window) - windows_.begin()));
    if (window_of_layer_.back() == static_cast<int>(windows_.size())) windows_.push_back(window);
  }
  for (const std::vector<int>& begin : placement.expert_begin)
    expert_terms_.push_back(&*std::ranges::find(placement.expert_begin, begin));
  for (std::vector<double>* times : {&clock_, &exchange_clock_, &port_free_, &arrival_, &layers_end_})
    times->resize(ranks);
  flows_.resize(ranks);
  sent_.resize(ranks);
  seconds_.resize(ranks);
}

void StepSimulator::wait_until(double seconds) {
  clock_[0] = std::max(clock_[0], seconds);
}

StepSimulator::Part StepSimulator::make_part(const Batch& batch, std::span<const std::int64_t> sequences,
                                             const StepParts& parts, std::int64_t i) {
  const int members = model_.placement.members;
  Part part{.batch = &batch, .sequences = sequences};
  part.pieces = pieces_of_part(model_.config, model_.placement, batch, parts, i);
  part.tokens.resize(members);
  part.sampled.resize(members);
  part.keys.resize(members);
  const std::vector<std::int32_t>& sampled = batch.sampled_rows;
  for (auto piece = part.pieces.begin(); piece != part.pieces.end();) {
    const int owner = piece->owner;
    const auto first = piece;
    for (; piece != part.pieces.end() && piece->owner == owner; ++piece) {
      part.tokens[owner] += piece->end - piece->begin;
      part.sampled[owner] += static_cast<int>(std::ranges::lower_bound(sampled, piece->end) -
                                              std::ranges::lower_bound(sampled, piece->begin));
    }
    for (const int window : windows_)
      part.keys[owner].push_back(attended_keys(batch, {first, piece}, window, cluster_.device.attention));
  }
  for (std::vector<AttendedKeys>& keys : part.keys) keys.resize(windows_.size());  // of members without rows
  return part;
}

void StepSimulator::advance(int rank, double seconds, double RankSeconds::*kind) {
  clock_[rank] += seconds;
  seconds_[rank].*kind += seconds;
}

void StepSimulator::begin(const Batch& batch, std::span<const std::int64_t> sequences) {
  advance(0, cluster_.step_s, &RankSeconds::host);
  broadcast(batch);
  run(batch, sequences);
}

double StepSimulator::pass(const Batch& batch, std::span<const std::int64_t> sequences) {
  FOE_CHECK(flights_.empty(), "{} steps are under way", flights_.size());
  const double begin = *std::ranges::max_element(clock_);
  std::ranges::fill(clock_, begin);
  run(batch, sequences);
  double end = begin;
  for (std::size_t rank = 0; rank < clock_.size(); ++rank) end = std::max(end, layers_end_[rank]);
  this->end();
  return end - begin;
}

void StepSimulator::run(const Batch& batch, std::span<const std::int64_t> sequences) {
  FOE_CHECK(batch.candidates.size() == batch.sampled_rows.size(), "{} numbers of candidates for {} rows",
            batch.candidates.size(), batch.sampled_rows.size());
  const StepParts parts = step_parts(model_.config, model_.placement, batch, model_.exchange.overlap);
  std::vector<Part> all;
  for (std::int64_t i = 0; i < parts.count(); ++i) all.push_back(make_part(batch, sequences, parts, i));
  for (int m = 0; m < parts.micro_batches; ++m)
    for (const Stage& stage : stages_) run_stage(stage, std::span(all).subspan(m * parts.halves, parts.halves));
  Flight flight{.rows = batch.num_sampled()};
  if (clock_.size() > 1) gather(batch, all, flight);
  flights_.push_back(std::move(flight));
}

void StepSimulator::end() {
  FOE_CHECK(!flights_.empty(), "no step is under way");
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  for (const double come : flight.gathers) pass_time(0, come - flight.gather_s, come, sent_[0].gather);
  for (const double come : flight.messages) {
    ++sent_[0].send.calls;
    pass_time(0, come, come, sent_[0].send);
  }
  advance(0, flight.rows * cluster_.row_s, &RankSeconds::host);
}

void StepSimulator::run_stage(const Stage& stage, std::span<Part> halves) {
  receive_rows(stage, halves);
  for (std::size_t i = 0; i < stage.steps.size(); ++i)
    for (Part& part : halves) {
      if (i > 0) finish_step(stage.steps[i - 1], part);
      begin_step(stage, stage.steps[i], part);
    }
  for (Part& part : halves) finish_step(stage.steps.back(), part);
  pass_rows(stage, halves);
}

void StepSimulator::begin_step(const Stage& stage, const StepStage& step, Part& part) {
  if (step.kind == StageKind::kExperts || step.kind == StageKind::kDispatch) count_routes(step.layer, part);
  const bool attention = step.kind == StageKind::kAttention;
  const bool projects = step.kind == StageKind::kKeys || (attention && !model_.placement.split_sequences);
  if (attention && sums_squares(model_.config, model_.placement)) {
    for (const int rank : stage.ranks) compute(step, rank, part, true, false);
    start_sum(stage, model_.placement.attention_begin, Wire::kF32, 2, part);
    finish_exchange(part);
    for (const int rank : stage.ranks) compute(step, rank, part, false, true);
  } else {
    for (const int rank : stage.ranks) compute(step, rank, part, projects, attention);
  }
  start_exchange(stage, step, part);
}

void StepSimulator::finish_step(const StepStage& step, Part& part) {
  finish_exchange(part);
  if (ends_layers(model_.config, step)) part.only_sampled = true;
}

void StepSimulator::count_routes(int layer, Part& part) const {
  const Batch& batch = *part.batch;
  counter_.clear(layer, part.counts);
  for (const Piece& piece : part.pieces) {
    const std::int64_t sequence = part.sequence(piece);
    if (!part.only_sampled) {
      counter_.add(layer, sequence, batch.positions[piece.begin], piece.end - piece.begin, piece.owner, part.counts);
      continue;
    }
    for (auto row = std::ranges::lower_bound(batch.sampled_rows, piece.begin);
         row != batch.sampled_rows.end() && *row < piece.end; ++row)
      counter_.add(layer, sequence, batch.positions[*row], 1, piece.owner, part.counts);
  }
}

void StepSimulator::compute(const StepStage& step, int rank, const Part& part, bool projects, bool attends) {
  const DeviceSeconds& device = devices_[rank];
  const int member = model_.placement.ranks[rank].member, rows = part.rows(member), layer = step.layer;
  // A block that an exchange cuts in two counts once.
  const bool ends_block =
      step.kind == StageKind::kAttention ? attends : step.kind != StageKind::kKeys && step.kind != StageKind::kDispatch;
  double seconds = ends_block ? cluster_.device.block_s : 0;
  double RankSeconds::*kind = &RankSeconds::experts;
  switch (step.kind) {
    case StageKind::kKeys:
    case StageKind::kAttention:
      kind = &RankSeconds::attention;
      if (projects) seconds += device.projections(layer, rows);
      if (attends) seconds += device.attending(part.keys[member][window_of_layer_[layer]]);
      break;
    case StageKind::kExperts:
      seconds += device.routing(layer, rows) + device.experts(layer, rows, part.counts);
      break;
    case StageKind::kDispatch:
      seconds += device.routing(layer, rows);
      break;
    case StageKind::kReturn:
      seconds += device.experts(layer, rows, part.counts);
      break;
    case StageKind::kLastSum:
      seconds += device.last_sum(rows);
      break;
    case StageKind::kScoring:
      kind = &RankSeconds::head;
      layers_end_[rank] = clock_[rank];
      seconds += device.scoring(rows);
      break;
  }
  advance(rank, seconds, kind);
}

}  // namespace foe
