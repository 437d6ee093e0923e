// The frequencies of rotary embeddings (RoPE), and how they are stretched so that a model reads longer texts than it
// was trained on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace foe {

enum class RopeType {
  kDefault,   // theta^(-2i / width)
  kDynamic,   // NTK: theta grows with the length of the text, once that is beyond original_positions
  kLlama3,    // low frequencies are divided by `factor`, high ones stay, with a ramp between the two (Llama 3.1)
  kYarn,      // the same with a ramp over the index of the pair (arXiv 2309.00071)
  kLongRope,  // a divisor for each pair: one list for texts of original_positions, another for longer ones (Phi-3)
};

// Names of fields are those of config.json's "rope_scaling", but for original_max_position_embeddings.
struct RopeScaling {
  RopeType type = RopeType::kDefault;
  double factor = 1;            // by which texts may be longer than those of the training
  int original_positions = 0;   // how long those were
  double attention_factor = 0;  // multiplies cosines and sines; 0: what the type's formula says (kYarn, kLongRope)
  double low_freq_factor = 1, high_freq_factor = 4;         // kLlama3: so many turns in a text of the training
  double beta_fast = 32, beta_slow = 1;                     // kYarn: the same
  double mscale = 0, mscale_all_dim = 0;                    // kYarn: in the formula of attention_factor; 0: not there
  bool truncate = true;                                     // kYarn: the ramp begins and ends at whole indices
  std::vector<double> short_factor = {}, long_factor = {};  // kLongRope, [width / 2]

  // Whether frequencies depend on the length of the text.
  bool by_length() const { return type == RopeType::kDynamic || type == RopeType::kLongRope; }
  bool operator==(const RopeScaling&) const = default;
};

// How queries and keys of some layers rotate.
struct Rotation {
  double theta = 10000;
  double factor = 1;  // positions are divided by it
  int width = 0;      // so many elements of a head rotate
  // Frequencies and angles are rounded to f32 at each step, as transformers and most programs that train do it: at
  // position 4000 angles are off by up to 1e-4, and logits by 2e-5 of the largest. Otherwise they are f64.
  bool f32 = false;
  RopeScaling scaling = {};

  bool operator==(const Rotation&) const = default;
};

// The angle of pair i at position p is p / stretch * inverse[i]; its cosine and sine are multiplied by `factor`.
struct RopeFrequencies {
  std::vector<double> inverse;
  double stretch = 1, factor = 1;
  bool f32 = false;  // the angle is rounded to f32
};

// Returns the frequencies of width / 2 pairs, for a text of so many tokens where they depend on it. Requires what
// validate() has let pass.
RopeFrequencies rope_frequencies(const Rotation& rotation, std::int64_t length = 0);

// Throws Error, naming the key behind `prefix`, for numbers with which there are no frequencies.
void validate(const RopeScaling& scaling, double theta, int width, const std::string& prefix);

const char* to_string(RopeType value);

}  // namespace foe
