// The attention block of a layer, as a stage of the pipeline: norm, q/k/v, rotation, writing keys and values to the
// cache, attention, and the output projection. Where ranks split sequences it is two stages, with the exchange of keys
// and values in between.
#pragma once

#include "model/step.h"

namespace foe {

// Starts r += c * sum_h (M_h + Attn_h(norm(r + M_h))) or, with a shared residual, r += Attn(norm(r)). In a layer that
// does not sync: M_h += Attn_h(norm(r + M_h)), where nothing is left to finish.
void begin_attention(Step& s, int layer);
void finish_attention(Step& s, int layer);
// The same in two stages. The first starts the exchange of keys and values, and writes those of all ranks to the cache.
// The second goes on with attention, and ends in finish_attention().
void begin_keys(Step& s, int layer);
void finish_keys(Step& s, int layer);
void begin_attending(Step& s, int layer);
// Adds the sum to r: in finish_attention() or, where the experts read the same r (parallel blocks), together with them.
void add_attention(Step& s, int layer);

}  // namespace foe
