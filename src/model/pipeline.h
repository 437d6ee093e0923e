// The order in which the stages of a step run, whole or in two halves. Only this file knows of halves: a stage is
// written as if there were one step.
#pragma once

#include <span>
#include <vector>

#include "base/clock.h"
#include "model/step.h"

namespace foe {

// A stage computes, and may start an exchange. After the exchange, the stage takes what has arrived.
struct Stage {
  using Function = void (*)(Step& s, int layer);

  Function begin;
  Function finish;  // null if nothing arrives
  int layer;
  PartStats* stats;  // of the part that the stage belongs to
};

// Runs the stages one after the other, each for all halves in turn. So the exchange of one half goes on while the other
// half computes.
void run_stages(std::vector<Step>& halves, std::span<const Stage> stages);

// Adds the time of its scope to the stats of a part: the time that exchanges took to moving and waiting, the rest to
// arithmetic.
class PartClock {
 public:
  PartClock(Step& s, PartStats& stats) : step_(s), stats_(stats) { step_.exchanged = {}; }
  ~PartClock();
  PartClock(const PartClock&) = delete;
  PartClock& operator=(const PartClock&) = delete;

 private:
  Step& step_;
  PartStats& stats_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace foe
