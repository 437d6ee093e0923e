// Shows the progress of a run: on a terminal one line that is rewritten, otherwise a line now and then.
#pragma once

#include <chrono>
#include <string>

#include <fmt/format.h>

#include "train/metrics.h"

namespace foe::train {

class Progress {
 public:
  // `step_tokens` is the number of tokens of a step, from which it computes the time that is left.
  Progress(bool quiet, int steps, int step_tokens);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(int step, const StepReport& report, const Speed& speed);

  // Prints a line that stays.
  template <typename... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    print_line(fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  void print_line(const std::string& line);

  bool quiet_, terminal_;
  int steps_, step_tokens_;
  bool pending_ = false;  // whether the terminal's last line will be rewritten
  double smooth_loss_ = 0, smooth_rate_ = 0, smooth_share_ = 0;
  int seen_ = 0;
  std::chrono::steady_clock::time_point printed_;
};

}  // namespace foe::train
