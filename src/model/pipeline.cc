#include "model/pipeline.h"

namespace foe {
namespace {

void begin(Step& s, const Stage& stage) {
  const PartClock clock(s, *stage.stats);
  stage.begin(s, stage.layer);
}

void finish(Step& s, const Stage& stage) {
  const PartClock clock(s, *stage.stats);
  finish_exchange(s);
  if (stage.finish) stage.finish(s, stage.layer);
}

}  // namespace

void run_stages(std::vector<Step>& halves, std::span<const Stage> stages) {
  for (std::size_t i = 0; i < stages.size(); ++i)
    for (Step& s : halves) {
      if (i > 0) finish(s, stages[i - 1]);
      begin(s, stages[i]);
      s.grid.messages().progress();
    }
  for (Step& s : halves) finish(s, stages.back());
}

PartClock::~PartClock() {
  const CommCounter& exchanged = step_.exchanged;
  stats_.arithmetic_s += seconds_since(start_) - exchanged.seconds;
  stats_.moving_s += exchanged.seconds - exchanged.waiting_s;
  stats_.waiting_s += exchanged.waiting_s;
  stats_.bytes += exchanged.bytes;
}

}  // namespace foe
