// Writes metrics.jsonl of a run: one JSON object per line, in the order of the steps. Each step comes once, however
// often the run was interrupted.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "train/trainer.h"

namespace foe::train {

struct Speed {
  double tokens_per_second = 0;
  double peak_share = 0;  // share of the measured FMA peak, 0 to 1
};

class Metrics {
 public:
  // Opens the file to append. Lines of steps after `steps_done`, which an interrupted run has left, and an incomplete
  // last line are removed. Throws Error, naming the file, if the system refuses.
  // With `distilled`, steps have the divergence from the teacher, too.
  Metrics(const std::string& path, int steps_done, bool distilled = false);

  void step(int step, std::int64_t tokens, const StepReport& report, const Speed& speed);
  // `complete` says whether the whole held-out file was scored, with overlapping windows.
  void validation(int step, std::int64_t tokens, double nats_per_token, double bits_per_byte, bool complete);

 private:
  void write(const std::string& line);

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  bool distilled_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace foe::train
