#include "costs/roofline.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/model_tensors.h"

namespace foe {
namespace {

// The work of multiplying `rows` rows with matrices of so many elements, which are read once if there are any rows.
Work product_work(double elements, WeightFormat format, const KeptFormats& kept, double rows) {
  const double read = rows > 0 ? elements * bits(format, kept) / 8 : 0, operations = 2 * elements * rows;
  if (quantised(format) || !kept.formats.empty()) return {.bytes = read, .dots = operations};
  return {.bytes = read, .flops = operations};
}

// Returns how many of the sequences this member owns.
int own_sequences(int sequences, int members, int member) {
  return sequences / members + (member < sequences % members ? 1 : 0);
}

// Returns the work of a rank's experts of one layer. They run the rows of all members, but for those of a dense layer,
// which every member has.
Work experts_work(const ModelConfig& c, int layer, const Share& share, int members, const DecodeStep& step) {
  const auto elements_of = [&](double units) { return 3.0 * units * c.hidden_size; };
  if (c.experts(layer).dense())
    return product_work(elements_of(share.experts(layer).size() * share.expert_width(layer).size()),
                        step.weights.experts, step.weights.kept_experts,
                        own_sequences(step.sequences, members, share.member));
  double units = 0;
  for (int id = share.experts(layer).begin; id < share.experts(layer).end; ++id) units += expert_width(c, layer, id);
  // The rows of each expert, and the share of experts that have rows.
  const ExpertTable table = expert_table(c, layer);
  const double E = table.with_rows();
  const double selected = static_cast<double>(c.experts(layer).per_token) * table.routed / table.scored();
  Work work = product_work(elements_of(units), step.weights.experts, step.weights.kept_experts,
                           step.sequences * (selected + table.shared) / E);
  work.bytes *= experts_touched(c, layer, step.sequences) / E;
  return work;
}

}  // namespace

std::vector<MatrixElements> matrix_elements_by_layer(const ModelConfig& c, const Share& share) {
  std::vector<MatrixElements> layers(c.num_layers() + 1);
  const TensorTable table(c);
  for (const ModelTensor& row : table.rows()) {
    MatrixElements& elements = row.layer >= 0 ? layers[row.layer] : layers.back();
    const std::int64_t size = part_of(row, c, share).size();
    if (row.format == TensorFormat::kAttention)
      elements.attention += size;
    else if (row.format == TensorFormat::kExperts)
      elements.experts += size;
    else if (row.format == TensorFormat::kHead)
      elements.head += size;
    else if (std::ranges::find(kRouterRoles, row.role) != std::end(kRouterRoles))
      elements.router += size;
  }
  return layers;
}

MatrixElements matrix_elements(const ModelConfig& c, const Share& share) {
  MatrixElements sum;
  for (const MatrixElements& layer : matrix_elements_by_layer(c, share)) {
    sum.attention += layer.attention;
    sum.router += layer.router;
    sum.experts += layer.experts;
    sum.head += layer.head;
  }
  return sum;
}

Work& Work::operator+=(const Work& other) {
  bytes += other.bytes;
  flops += other.flops;
  dots += other.dots;
  return *this;
}

StepWork& StepWork::operator+=(const StepWork& other) {
  projections += other.projections;
  attention += other.attention;
  router += other.router;
  experts += other.experts;
  head += other.head;
  return *this;
}

Work StepWork::total() const {
  Work sum;
  for (const Work& part : {projections, attention, router, experts, head}) sum += part;
  return sum;
}

double experts_touched(const ModelConfig& config, int layer, int sequences) {
  const ExpertTable table = expert_table(config, layer);
  const double scored = table.scored(), K = scored > 0 ? config.experts(layer).per_token : 0;
  return table.shared + (scored > 0 ? table.routed * (1 - std::pow(1 - K / scored, sequences)) : 0);
}

double mean_experts_touched(const ModelConfig& config, int sequences) {
  double sum = 0;
  for (int layer = 0; layer < config.num_layers(); ++layer) sum += experts_touched(config, layer, sequences);
  return sum / config.num_layers();
}

StepWork decode_work(const ModelConfig& c, const Placement& placement, int rank, const DecodeStep& step) {
  const Share& share = placement.ranks[rank];
  if (share.idle()) return {};
  const MatrixElements elements = matrix_elements(c, share);
  const double own = own_sequences(step.sequences, placement.members, share.member);

  const KvShape kv{share.kv_heads.size(), c.heads().key_width, c.heads().head_value_width(), step.kv};
  const double position_bytes = static_cast<double>(kv.block_bytes()) / kKvBlock;
  const double position_flops = 2.0 * share.kv_heads.size() * c.heads().per_kv_head() * (kv.key_width + kv.value_width);
  double positions = 0;
  Work experts;
  for (int l = 0; l < c.num_layers(); ++l) {
    if (!share.runs(l)) continue;
    const int window = c.attention(l).window;
    positions += own * (window > 0 ? std::min<double>(window, step.context) : step.context);
    experts += experts_work(c, l, share, placement.members, step);
  }
  return {.projections = product_work(static_cast<double>(elements.attention), step.weights.attention,
                                      step.weights.kept_attention, own),
          .attention = {.bytes = positions * position_bytes, .flops = positions * position_flops},
          .router = product_work(static_cast<double>(elements.router), WeightFormat::kF32, {}, own),
          .experts = experts,
          .head = product_work(static_cast<double>(elements.head), step.weights.head, step.weights.kept_head, own)};
}

StepWork decode_work(const ModelConfig& config, const Placement& placement, const DecodeStep& step) {
  StepWork sum;
  for (std::size_t rank = 0; rank < placement.ranks.size(); ++rank)
    sum += decode_work(config, placement, static_cast<int>(rank), step);
  return sum;
}

double arithmetic_seconds(const Work& work, const MachineLimits& limits) {
  return (work.flops > 0 ? work.flops / limits.flops_per_s : 0) + (work.dots > 0 ? work.dots / limits.dots_per_s : 0);
}

double least_seconds(const Work& work, const MachineLimits& limits) {
  return std::max(work.bytes / limits.read_bytes_per_s, arithmetic_seconds(work, limits));
}

}  // namespace foe
