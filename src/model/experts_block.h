// The experts block of a layer, as stages of the pipeline: norm, router, selection, and experts. It is one stage if
// every rank has the rows of its experts. If rows travel it is two: one exchange takes them to their experts, and
// another one brings sums back.
#pragma once

#include "model/step.h"

namespace foe {

// update_h = M_h = sum of w_e * FFN_e(norm(r)) over the selected experts of each local stream. With a shared residual,
// starts the sum over ranks.
void begin_experts(Step& s, int layer);
// Finishes the updates: affine experts, the norm behind the block and its factor. With a shared residual, adds them to
// r, behind attention where the two are parallel.
void finish_experts(Step& s, int layer);

// The same if rows travel.
void begin_dispatch(Step& s, int layer);
void finish_dispatch(Step& s, int layer);
void begin_return(Step& s, int layer);
void finish_return(Step& s, int layer);

}  // namespace foe
