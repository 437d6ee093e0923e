#include "train/progress.h"

#include <algorithm>
#include <cstdio>
#include <unistd.h>

namespace foe::train {
namespace {

// How many steps the averages cover, and the seconds between lines if there is no terminal.
constexpr int kMemory = 20;
constexpr double kLineSeconds = 30;

std::string duration(double seconds) {
  const auto s = static_cast<long long>(std::max(0.0, seconds));
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}m{:02}s", s / 60, s % 60);
}

}  // namespace

Progress::Progress(bool quiet, int steps, int step_tokens)
    : quiet_(quiet), terminal_(isatty(STDOUT_FILENO) != 0), steps_(steps), step_tokens_(step_tokens) {}

Progress::~Progress() {
  if (pending_) std::printf("\n");
}

void Progress::step(int step, const StepReport& report, const Speed& speed) {
  const double keep = seen_ == 0 ? 0 : 1 - 1.0 / std::min(seen_ + 1, kMemory);
  smooth_loss_ = keep * smooth_loss_ + (1 - keep) * report.loss;
  smooth_rate_ = keep * smooth_rate_ + (1 - keep) * speed.tokens_per_second;
  smooth_share_ = keep * smooth_share_ + (1 - keep) * speed.peak_share;
  ++seen_;
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  const bool due =
      seen_ == 1 || step == steps_ || std::chrono::duration<double>(now - printed_).count() >= kLineSeconds;
  if (!terminal_ && !due) return;
  printed_ = now;
  const std::string line =
      fmt::format("step {}/{}  loss {:.4f}  {:.0f} tokens/s  {:.1f}% of peak  {} left", step, steps_, smooth_loss_,
                  smooth_rate_, 100 * smooth_share_, duration(step_tokens_ / smooth_rate_ * (steps_ - step)));
  if (terminal_) {
    std::printf("\r%s\033[K", line.c_str());
    std::fflush(stdout);
    pending_ = true;
  } else {
    print_line(line);
  }
}

void Progress::print_line(const std::string& line) {
  if (quiet_) return;
  std::printf("%s%s\n", pending_ ? "\r\033[K" : "", line.c_str());
  std::fflush(stdout);
  pending_ = false;
}

}  // namespace foe::train
