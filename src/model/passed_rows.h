// What a stage of plan pp passes to the next one: the rows of a step, r and what groups have added to their own
// streams, behind the last of its layers.
#pragma once

#include <cstddef>

#include "model/step.h"

namespace foe {

// Sends the step's rows to the stage that begins with this layer, in the encoding of the wire.
void pass_rows(Step& s, int layer);
// Waits for the rows of the same step from the stage before.
void receive_rows(Step& s, int layer);

}  // namespace foe
