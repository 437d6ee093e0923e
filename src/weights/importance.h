// How much the errors of a model's rounded weights count, by what they are multiplied with.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/model_input.h"
#include "kernels/formats/feedback.h"

namespace foe {

struct Importance {
  // The mean square of each channel of what the matrices multiply. Of places that are not here, all channels count
  // alike.
  std::map<InputPlace, std::vector<float>> channels;
  // How the channels are correlated. All of a layer's experts have those of {ModelInput::kExpert, layer, 0}.
  std::map<InputPlace, Correlations> correlations;
  std::string source;  // what it was measured with, in words, for the folder that is rounded by it

  // Returns how the errors of columns count that multiply this from channel `first` on.
  ColumnErrors find(const InputPlace& place, int first = 0) const {
    const auto own = channels.find(place);
    if (own == channels.end()) return {};
    const auto all = correlations.find(correlated(place));
    return ColumnErrors{own->second.data(), all == correlations.end() ? nullptr : &all->second}.from(first);
  }
  // The place whose correlations a place has.
  static InputPlace correlated(const InputPlace& place) {
    return {place.input, place.layer, place.input == ModelInput::kExpert ? 0 : place.index};
  }
};

}  // namespace foe
