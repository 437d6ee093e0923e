// Changes all layers of a configuration alike.
#pragma once

#include <type_traits>

#include "core/model_config.h"

namespace foe {

template <typename T>
void set(ModelConfig& config, T AttentionConfig::*field, const std::type_identity_t<T>& value) {
  for_each_attention(config, [&](AttentionConfig& attention) { attention.*field = value; });
}

template <typename T>
void set(ModelConfig& config, T ExpertsConfig::*field, const std::type_identity_t<T>& value) {
  for_each_experts(config, [&](ExpertsConfig& experts) { experts.*field = value; });
}

template <typename T>
void set(ModelConfig& config, T RouterConfig::*field, const std::type_identity_t<T>& value) {
  for_each_experts(config, [&](ExpertsConfig& experts) { (*experts.router).*field = value; });
}

// Each layer's experts become one of their width that every token goes to.
inline void make_dense(ModelConfig& config) {
  for_each_experts(config, [](ExpertsConfig& experts) { experts = dense_experts(experts.width); });
}

}  // namespace foe
