#include "load/spec_decode.h"

#include <charconv>
#include <cmath>
#include <string>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace foe {
namespace {

constexpr int kMostPositions = 1024;

// A line "PREFIX:spec_decode_NAME_total{LABELS} VALUE".
struct Sample {
  std::string_view name, labels;
  double value;
};

std::optional<Sample> read_sample(std::string_view line) {
  constexpr std::string_view kFamily = ":spec_decode_", kEnd = "_total";
  const std::size_t name_end = line.find_first_of("{ "), space = line.rfind(' ');
  const std::size_t family = line.substr(0, name_end).find(kFamily);
  if (line.starts_with('#') || name_end == line.npos || space < name_end || family == line.npos) return {};
  Sample sample{line.substr(0, name_end), line.substr(name_end, space - name_end), 0};
  sample.name.remove_prefix(family + kFamily.size());
  if (!sample.name.ends_with(kEnd)) return {};
  sample.name.remove_suffix(kEnd.size());
  const std::string_view value = line.substr(space + 1);
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), sample.value);
  if (error != std::errc() || end != value.data() + value.size() || !std::isfinite(sample.value)) return {};
  return sample;
}

std::optional<int> position_of(std::string_view labels) {
  constexpr std::string_view kLabel = "position=\"";
  const std::size_t at = labels.find(kLabel);
  if (at == labels.npos) return {};
  int position = -1;
  const char* const begin = labels.data() + at + kLabel.size();
  std::from_chars(begin, labels.data() + labels.size(), position);
  return position >= 0 && position < kMostPositions ? std::optional(position) : std::nullopt;
}

}  // namespace

std::optional<SpecDecodeCounts> read_spec_decode(std::string_view metrics) {
  std::optional<SpecDecodeCounts> counts;
  while (!metrics.empty()) {
    const std::size_t length = std::min(metrics.find('\n'), metrics.size() - 1) + 1;
    std::string_view line = metrics.substr(0, length);
    metrics.remove_prefix(length);
    while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
    const std::optional<Sample> sample = read_sample(line);
    if (!sample) continue;
    if (!counts) counts.emplace();
    if (sample->name == "num_drafts") counts->drafts += sample->value;
    if (sample->name == "num_draft_tokens") counts->draft_tokens += sample->value;
    if (sample->name == "num_accepted_tokens") counts->accepted_tokens += sample->value;
    if (sample->name != "num_accepted_tokens_per_pos") continue;
    if (const auto position = position_of(sample->labels)) counts->by_position[*position] += sample->value;
  }
  return counts;
}

std::optional<SpecDecodeCounts> counted_between(const std::optional<SpecDecodeCounts>& before,
                                                const std::optional<SpecDecodeCounts>& after) {
  if (!before || !after || !(after->draft_tokens > before->draft_tokens)) return {};
  SpecDecodeCounts counts{after->drafts - before->drafts, after->draft_tokens - before->draft_tokens,
                          after->accepted_tokens - before->accepted_tokens, after->by_position};
  for (const auto& [position, accepted] : before->by_position)
    if (const auto later = counts.by_position.find(position); later != counts.by_position.end())
      later->second -= accepted;
  return counts;
}

nlohmann::json to_json(const SpecDecodeCounts& c) {
  nlohmann::json by_position = nlohmann::json::array();
  for (const auto& [position, accepted] : c.by_position) by_position.push_back(c.drafts > 0 ? accepted / c.drafts : 0);
  return {{"spec_decode_acceptance_rate", c.draft_tokens > 0 ? 100 * c.accepted_tokens / c.draft_tokens : 0},
          {"spec_decode_acceptance_length", c.drafts > 0 ? 1 + c.accepted_tokens / c.drafts : 0},
          {"spec_decode_num_drafts", std::llround(c.drafts)},
          {"spec_decode_draft_tokens", std::llround(c.draft_tokens)},
          {"spec_decode_accepted_tokens", std::llround(c.accepted_tokens)},
          {"spec_decode_per_position_acceptance_rates", std::move(by_position)}};
}

void print_spec_decode(std::FILE* out, const SpecDecodeCounts& counts) {
  const nlohmann::json values = to_json(counts);
  const auto print = [&](const char* label, double value, int digits) {
    fmt::print(out, "{:<40} {:<10.{}f}\n", label, value, digits);
  };
  fmt::print(out, "{:-^50}\n", "Speculative Decoding");
  print("Acceptance rate (%):", values["spec_decode_acceptance_rate"], 2);
  print("Acceptance length:", values["spec_decode_acceptance_length"], 2);
  print("Drafts:", counts.drafts, 0);
  print("Draft tokens:", counts.draft_tokens, 0);
  print("Accepted tokens:", counts.accepted_tokens, 0);
  for (const auto& [position, accepted] : counts.by_position)
    print(fmt::format("Position {} (%):", position).c_str(), counts.drafts > 0 ? 100 * accepted / counts.drafts : 0, 2);
  fmt::print(out, "{:=^50}\n", "");
  std::fflush(out);
}

}  // namespace foe
