#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "base/huge_pages.h"

namespace foe::train {
namespace {

// A sum of squares has so many partial sums, which the compiler turns into vector lanes.
constexpr std::size_t kLanes = 8;

double squares_in_double(const float* x, std::size_t n) {
  double part[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::size_t j = 0; j < kLanes; ++j) part[j] += static_cast<double>(x[i + j]) * x[i + j];
  double sum = 0;
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  for (const double p : part) sum += p;
  return sum;
}

struct StepSizes {
  float clip, beta1, beta2, rate, correction1, correction2, eps, decay;
};

// p = (1 - decay) p - rate * m^ / (sqrt(v^) + eps), with m^ and v^ the moments divided by 1 - beta^t.
void adamw(const StepSizes& s, std::size_t n, const float* gradient, float* m, float* v, float* p) {
  for (std::size_t i = 0; i < n; ++i) {
    const float g = s.clip * gradient[i];
    m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
    v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
    p[i] = (1 - s.decay) * p[i] - s.rate * (m[i] * s.correction1) / (std::sqrt(v[i] * s.correction2) + s.eps);
  }
}

}  // namespace

double learning_rate(const TrainConfig& config, int step) {
  if (step < config.warmup_steps) return config.learning_rate * (step + 1) / config.warmup_steps;
  const int left = config.steps - step;  // at least 1 in a run
  if (left > config.decay_steps) return config.learning_rate;
  const double share = static_cast<double>(left) / (config.decay_steps + 1);
  return config.learning_rate * (config.final_learning_rate + (1 - config.final_learning_rate) * share);
}

AdamW::AdamW(std::span<const Piece> pieces, std::size_t moments, const TrainConfig& config)
    : first(large_zeroed_buffer<float>(moments)),
      second(large_zeroed_buffer<float>(moments)),
      config_(config),
      pieces_(pieces) {}

std::vector<double> AdamW::squares(ThreadPool& pool, const float* gradient) const {
  std::vector<double> squares(pieces_.size());
  pool.parallel_for(pieces_.size(), [&](std::size_t i) {
    squares[i] = squares_in_double(gradient + pieces_[i].offset, pieces_[i].size);
  });
  return squares;
}

void AdamW::update(ThreadPool& pool, int step, double norm, const float* gradient, float* params) {
  const double rate = learning_rate(config_, step);
  StepSizes sizes;
  sizes.clip = norm > config_.gradient_clip ? static_cast<float>(config_.gradient_clip / norm) : 1.0f;
  sizes.beta1 = static_cast<float>(config_.beta1);
  sizes.beta2 = static_cast<float>(config_.beta2);
  sizes.rate = static_cast<float>(rate);
  sizes.correction1 = static_cast<float>(1 / (1 - std::pow(config_.beta1, step + 1)));
  sizes.correction2 = static_cast<float>(1 / (1 - std::pow(config_.beta2, step + 1)));
  sizes.eps = static_cast<float>(config_.adam_eps);
  pool.parallel_for(pieces_.size(), [&](std::size_t i) {
    const Piece& piece = pieces_[i];
    StepSizes own = sizes;
    own.decay = piece.decay ? static_cast<float>(rate * config_.weight_decay) : 0.0f;
    adamw(own, piece.size, gradient + piece.offset, first.data() + piece.moment, second.data() + piece.moment,
          params + piece.offset);
  });
}

}  // namespace foe::train
