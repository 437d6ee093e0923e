#include "core/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <type_traits>

#include <fmt/format.h>

#include "base/error.h"

namespace foe {
namespace {

// The temperature by which YaRN sharpens attention in a text that is `factor` times longer.
double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

double attention_factor(const RopeScaling& s) {
  if (s.attention_factor > 0) return s.attention_factor;
  if (s.type == RopeType::kYarn)
    return s.mscale > 0 && s.mscale_all_dim > 0
               ? yarn_scale(s.factor, s.mscale) / yarn_scale(s.factor, s.mscale_all_dim)
               : yarn_scale(s.factor, 1);
  if (s.type == RopeType::kLongRope && s.factor > 1)
    return std::sqrt(1 + std::log(s.factor) / std::log(s.original_positions));
  return 1;
}

// The rest is computed in T, in the order of operations of transformers, whose roundings in f32 these are.

// 1 / theta^(2i / width)
template <typename T>
T plain_frequency(T theta, int i, int width) {
  if constexpr (std::is_same_v<T, double>) return std::pow(theta, -2.0 * i / width);
  const T exponent = static_cast<T>(2 * i) / static_cast<T>(width);
  return 1 / static_cast<T>(std::pow(static_cast<double>(theta), static_cast<double>(exponent)));
}

template <typename T>
void scale_as_llama3(const RopeScaling& s, std::vector<T>& inverse) {
  const T low = static_cast<T>(s.low_freq_factor), range = static_cast<T>(s.high_freq_factor - s.low_freq_factor);
  const T factor = static_cast<T>(s.factor), length = static_cast<T>(s.original_positions);
  for (T& f : inverse) {
    const T wavelength = static_cast<T>(2 * std::numbers::pi) / f;
    if (wavelength < static_cast<T>(s.original_positions / s.high_freq_factor)) continue;
    if (wavelength > static_cast<T>(s.original_positions / s.low_freq_factor)) {
      f /= factor;
      continue;
    }
    const T kept = (length / wavelength - low) / range;
    f = (1 - kept) * f / factor + kept * f;
  }
}

template <typename T>
void scale_as_yarn(const RopeScaling& s, double theta, int width, std::vector<T>& inverse) {
  // The index, as a real number, of the pair that turns so often in a text of the training.
  const auto index_of = [&](double turns) {
    return width * std::log(s.original_positions / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = index_of(s.beta_fast), high = index_of(s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1.0);
  if (low == high) high += 0.001;  // as published, against a division by zero
  for (std::size_t i = 0; i < inverse.size(); ++i) {
    const T ramp =
        std::clamp((static_cast<T>(i) - static_cast<T>(low)) / static_cast<T>(high - low), static_cast<T>(0), T{1});
    const T kept = 1 - ramp;
    const T stretched = 1 / (static_cast<T>(s.factor) * (1 / inverse[i]));
    inverse[i] = stretched * (1 - kept) + inverse[i] * kept;
  }
}

// The base that makes a text of this length turn as far as one of the training did.
template <typename T>
T theta_of_length(const RopeScaling& s, T theta, int width, std::int64_t length) {
  const T longer = static_cast<T>(std::max<std::int64_t>(length, s.original_positions));
  const T stretch =
      static_cast<T>(s.factor) * longer / static_cast<T>(s.original_positions) - static_cast<T>(s.factor - 1);
  return theta * static_cast<T>(std::pow(static_cast<double>(stretch),
                                         static_cast<double>(static_cast<T>(width / (width - 2.0)))));
}

template <typename T>
std::vector<double> frequencies(const Rotation& r, std::int64_t length) {
  const RopeScaling& s = r.scaling;
  T theta = static_cast<T>(r.theta);
  if (s.type == RopeType::kDynamic) theta = theta_of_length(s, theta, r.width, length);
  std::vector<T> inverse;
  for (int i = 0; i < r.width / 2; ++i) inverse.push_back(plain_frequency(theta, i, r.width));
  if (s.type == RopeType::kLlama3) scale_as_llama3(s, inverse);
  if (s.type == RopeType::kYarn) scale_as_yarn(s, r.theta, r.width, inverse);
  if (s.type == RopeType::kLongRope) {
    const std::vector<double>& divisors = length > s.original_positions ? s.long_factor : s.short_factor;
    for (std::size_t i = 0; i < inverse.size(); ++i) inverse[i] = 1 / (static_cast<T>(divisors[i]) * (1 / inverse[i]));
  }
  if (r.f32)
    for (T& f : inverse) f /= static_cast<T>(r.factor);
  return {inverse.begin(), inverse.end()};
}

void expect_positive(const std::string& key, double value) {
  if (!(value > 0) || !std::isfinite(value)) fail("{}: expected a finite number above 0, got {}", key, value);
}

void check_divisors(const std::string& key, const std::vector<double>& divisors, int width) {
  if (static_cast<int>(divisors.size()) != width / 2)
    fail("{}: expected {} numbers, half of the {} rotating elements of a head, got {}", key, width / 2, width,
         divisors.size());
  for (const double divisor : divisors) expect_positive(key, divisor);
}

}  // namespace

RopeFrequencies rope_frequencies(const Rotation& r, std::int64_t length) {
  return {.inverse = r.f32 ? frequencies<float>(r, length) : frequencies<double>(r, length),
          .stretch = r.f32 ? 1 : r.factor,
          .factor = attention_factor(r.scaling),
          .f32 = r.f32};
}

void validate(const RopeScaling& s, double theta, int width, const std::string& prefix) {
  const auto key = [&](const char* name) { return prefix + name; };
  if (s.type == RopeType::kDefault) return;
  if (!(s.factor >= 1) || !std::isfinite(s.factor))
    fail("{}: expected a finite number of at least 1, got {}", key("factor"), s.factor);
  if (s.original_positions < 1)
    fail("{}: expected at least 1, got {}", key("original_max_position_embeddings"), s.original_positions);
  if (s.attention_factor != 0) expect_positive(key("attention_factor"), s.attention_factor);
  if (s.type == RopeType::kDynamic && width == 2)
    fail("{}: expected none of type dynamic where two elements of a head rotate, got dynamic", key("rope_type"));
  if (s.type == RopeType::kLlama3) {
    expect_positive(key("low_freq_factor"), s.low_freq_factor);
    if (!(s.high_freq_factor > s.low_freq_factor) || !std::isfinite(s.high_freq_factor))
      fail("{}: expected a finite number above low_freq_factor = {}, got {}", key("high_freq_factor"),
           s.low_freq_factor, s.high_freq_factor);
  }
  if (s.type == RopeType::kYarn) {
    if (!(theta > 1)) fail("rope_theta: expected a number above 1 with yarn, got {}", theta);
    expect_positive(key("beta_slow"), s.beta_slow);
    if (!(s.beta_fast >= s.beta_slow) || !std::isfinite(s.beta_fast))
      fail("{}: expected a finite number of at least beta_slow = {}, got {}", key("beta_fast"), s.beta_slow,
           s.beta_fast);
    for (const double scale : {s.mscale, s.mscale_all_dim})
      if (!(scale >= 0) || !std::isfinite(scale))
        fail("{}: expected a finite number of at least 0, got {}", key("mscale"), scale);
  }
  if (s.type == RopeType::kLongRope) {
    if (s.factor > 1 && s.attention_factor == 0 && s.original_positions == 1)
      fail("{}: expected at least 2, got 1", key("original_max_position_embeddings"));
    check_divisors(key("short_factor"), s.short_factor, width);
    check_divisors(key("long_factor"), s.long_factor, width);
  }
}

const char* to_string(RopeType value) {
  switch (value) {
    case RopeType::kDefault:
      return "default";
    case RopeType::kDynamic:
      return "dynamic";
    case RopeType::kLlama3:
      return "llama3";
    case RopeType::kYarn:
      return "yarn";
    case RopeType::kLongRope:
      return "longrope";
  }
  return "?";
}

}  // namespace foe
