// The functions between the two products of a feed-forward network: down(act(gate(x)) * up(x)).
#pragma once

namespace foe {

enum class Activation {
  kSilu,      // x / (1 + e^-x)
  kGeluTanh,  // x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the approximation of GELU that Gemma has
  kRelu2,     // max(0, x)^2
};

const char* to_string(Activation value);

}  // namespace foe
