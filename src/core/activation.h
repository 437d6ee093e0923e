// The functions between the two products of a feed-forward network: down(act(gate(x)) * up(x)).
#pragma once

namespace foe {

enum class Activation {
  kSilu,      // x / (1 + e^-x)
  kGeluTanh,  // x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the approximation of GELU that Gemma has
  kRelu2,     // max(0, x)^2
};

// What else happens there, of which nothing does by default: act(min(gate, limit)) * (clip(up, -limit, limit) +
// offset). gpt-oss has alpha 1.702, limit 7 and offset 1.
struct GateShape {
  double alpha = 1;      // SiLU becomes x / (1 + e^(-alpha x))
  double limit = 0;      // 0: neither is clipped
  double up_offset = 0;  // is added to up

  bool operator==(const GateShape&) const = default;
};

const char* to_string(Activation value);

}  // namespace foe
