// The element types of GGUF files. All are known, so that the layout of a file can be checked, but only those with a
// DType can be used as weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weights/stored_type.h"

namespace foe {

struct GgufType {
  std::uint32_t number;
  StoredType type;  // `bits` is 0: blocks of elements have scales besides
  int elements;     // of a block
  std::size_t bytes;
};

inline constexpr GgufType kGgufTypes[] = {
    {0, {"F32", 0, DType::kF32}, 1, 4},
    {1, {"F16", 0, DType::kF16}, 1, 2},
    {2, {"Q4_0", 0, DType::kQ4_0}, 32, 18},
    {3, {"Q4_1", 0, DType::kQ4_1}, 32, 20},
    {6, {"Q5_0", 0, DType::kQ5_0}, 32, 22},
    {7, {"Q5_1", 0, DType::kQ5_1}, 32, 24},
    {8, {"Q8_0", 0, DType::kQ8_0}, 32, 34},
    {9, {"Q8_1", 0, {}}, 32, 40},
    {10, {"Q2_K", 0, {}}, 256, 84},
    {11, {"Q3_K", 0, {}}, 256, 110},
    {12, {"Q4_K", 0, DType::kQ4_K}, 256, 144},
    {13, {"Q5_K", 0, DType::kQ5_K}, 256, 176},
    {14, {"Q6_K", 0, DType::kQ6_K}, 256, 210},
    {15, {"Q8_K", 0, {}}, 256, 292},
    {16, {"IQ2_XXS", 0, {}}, 256, 66},
    {17, {"IQ2_XS", 0, {}}, 256, 74},
    {18, {"IQ3_XXS", 0, {}}, 256, 98},
    {19, {"IQ1_S", 0, {}}, 256, 50},
    {20, {"IQ4_NL", 0, {}}, 32, 18},
    {21, {"IQ3_S", 0, {}}, 256, 110},
    {22, {"IQ2_S", 0, {}}, 256, 82},
    {23, {"IQ4_XS", 0, {}}, 256, 136},
    {24, {"I8", 0, {}}, 1, 1},
    {25, {"I16", 0, {}}, 1, 2},
    {26, {"I32", 0, {}}, 1, 4},
    {27, {"I64", 0, {}}, 1, 8},
    {28, {"F64", 0, {}}, 1, 8},
    {29, {"IQ1_M", 0, {}}, 256, 56},
    {30, {"BF16", 0, DType::kBF16}, 1, 2},
    {34, {"TQ1_0", 0, {}}, 256, 54},
    {35, {"TQ2_0", 0, {}}, 256, 66},
    {39, {"MXFP4", 0, DType::kMXFP4}, 32, 17},
    {40, {"NVFP4", 0, {}}, 64, 36},
    {41, {"Q1_0", 0, {}}, 128, 18},
};

// Returns null if there is no type with this number.
constexpr const GgufType* find_gguf_type(std::uint32_t number) {
  for (const GgufType& type : kGgufTypes)
    if (type.number == number) return &type;
  return nullptr;
}

// Where a type can be used, both tables must have it alike.
constexpr bool types_agree() {
  for (const GgufType& type : kGgufTypes)
    if (type.type.dtype &&
        (info_of(*type.type.dtype).elements != type.elements || info_of(*type.type.dtype).bytes != type.bytes))
      return false;
  return true;
}
static_assert(types_agree());

}  // namespace foe
