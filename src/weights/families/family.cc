#include "weights/families/family.h"

#include <array>

namespace foe {
namespace {

std::array<std::span<const Family>, 4> lists_of_families() {
  return {moe_families(), routed_families(), dense_families(), gpt_oss_families()};
}

}  // namespace

const Family* find_family(std::string_view model_type) {
  for (const std::span<const Family> list : lists_of_families())
    for (const Family& family : list)
      if (family.model_type == model_type) return &family;
  return nullptr;
}

std::string family_names() {
  std::string names;
  for (const std::span<const Family> list : lists_of_families())
    for (const Family& family : list) names.append(" ").append(family.model_type);
  return names;
}

}  // namespace foe
