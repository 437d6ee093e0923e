// What config.json calls the choices of model_config.h.
#include "core/model_config.h"

namespace foe {

const char* to_string(Residual value) {
  return value == Residual::kShared ? "shared" : "federated";
}

const char* to_string(GroupSync value) {
  return value == GroupSync::kMean ? "mean" : "sum";
}

const char* to_string(QkNorm value) {
  switch (value) {
    case QkNorm::kNone:
      return "none";
    case QkNorm::kHead:
      return "head";
    case QkNorm::kFull:
      return "full";
  }
  return "?";
}

const char* to_string(AttentionKind value) {
  switch (value) {
    case AttentionKind::kGrouped:
      return "grouped";
    case AttentionKind::kLatent:
      return "latent";
    case AttentionKind::kRecurrent:
      return "recurrent";
  }
  return "?";
}

const char* to_string(Activation value) {
  switch (value) {
    case Activation::kSilu:
      return "silu";
    case Activation::kGeluTanh:
      return "gelu_pytorch_tanh";
    case Activation::kRelu2:
      return "relu2";
  }
  return "?";
}

const char* to_string(BlockNorm value) {
  switch (value) {
    case BlockNorm::kBefore:
      return "before";
    case BlockNorm::kAfter:
      return "after";
    case BlockNorm::kBoth:
      return "both";
    case BlockNorm::kShared:
      return "shared";
  }
  return "?";
}

const char* to_string(ExpertStorage value) {
  return value == ExpertStorage::kOwn ? "own" : "slices";
}

}  // namespace foe
