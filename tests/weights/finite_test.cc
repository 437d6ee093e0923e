#include "weights/finite.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "model/random_model.h"
#include "weights/convert.h"
#include "weights/model_weights.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

template <typename Value>
Tensor tensor_of(DType type, std::vector<std::int64_t> shape, const std::vector<Value>& values) {
  return {type, std::move(shape), std::as_bytes(std::span(values)), "some.weight"};
}

TEST(Finite, FindsWhatIsNotWhereverItStands) {
  ThreadPool pool(2);
  std::vector<float> values(3 * 2500, -3.4e38f);
  const Tensor tensor = tensor_of(DType::kF32, {3, 2500}, values);
  require_finite(pool, tensor);
  for (const float bad : {kNan, -kNan, kInf, -kInf})
    for (const int at : {0, 1023, 1024, 2499, 2500, 6000, 7499}) {
      values[at] = bad;
      EXPECT_EQ(error_of([&] { require_finite(pool, tensor); }),
                fmt::format("some.weight: expected weights that are finite, got {} in row {}, column {}: the file is "
                            "damaged, or its training diverged",
                            bad, at / 2500, at % 2500));
      values[at] = 1;
    }
}

TEST(Finite, FindsTheFirstAndNothingBesideThePart) {
  ThreadPool pool(3);
  std::vector<BF16> values(4000 * 300, to_bf16(1));
  const Tensor tensor = tensor_of(DType::kBF16, {4000, 300}, values);
  for (const int row : {3999, 2000, 1700, 40}) {
    values[row * 300 + 7] = to_bf16(kInf);
    EXPECT_THAT(error_of([&] { require_finite(pool, tensor); }),
                HasSubstr("got inf in row " + std::to_string(row) + ", column 7"));
  }
  const StoredMatrix part = finite_part(pool, tensor, 41, 1600, 0, 300, WeightFormat::kInt4);
  EXPECT_EQ(part.rows, 1600);
  EXPECT_EQ(part.data, tensor.bytes.data() + 41 * 600);
  EXPECT_EQ(finite_part(pool, tensor, 0, 4000, 8, 292, WeightFormat::kBF16).depth, 292);
  EXPECT_THAT(error_of([&] { finite_part(pool, tensor, 30, 20, 5, 10, WeightFormat::kF32); }),
              HasSubstr("row 40, column 7"));
  EXPECT_EQ(finite_part(pool, tensor, 40, 0, 0, 300, WeightFormat::kF32).rows, 0);
}

// The largest that rounds to a number, and the next one.
TEST(Finite, KnowsWhatBf16DoesNotHold) {
  ThreadPool pool(1);
  const float most = std::bit_cast<float>(0x7f7f7fffu), more = std::bit_cast<float>(0x7f7f8000u);
  ASSERT_TRUE(std::isfinite(to_float(to_bf16(most))));
  ASSERT_TRUE(std::isinf(to_float(to_bf16(more))));
  const std::vector<float> fits = {most}, does_not = {more};
  finite_part(pool, tensor_of(DType::kF32, {1, 1}, fits), 0, 1, 0, 1, WeightFormat::kBF16);
  const Tensor large = tensor_of(DType::kF32, {1, 1}, does_not);
  require_finite(pool, large);
  EXPECT_THAT(error_of([&] { finite_part(pool, large, 0, 1, 0, 1, WeightFormat::kBF16); }),
              HasSubstr("expected weights that are finite in bf16, got 3.3961"));
}

// Every tensor of a model, alone: loading names it, and so does converting, which leaves nothing behind.
TEST(Finite, LoadingAndConvertingNameTheTensor) {
  ModelConfig config = small_federated(2);
  set_layers(config, 1);
  set(config, &ExpertsConfig::count, 4);
  set(config, &ExpertsConfig::per_token, 2);
  set(config, &AttentionConfig::qk_norm, QkNorm::kHead);
  const RandomModel model(config);
  const std::string path = model.path() + "/model.safetensors";
  const Share all = whole_share(config);
  ThreadPool pool(2);
  std::vector<TensorInfo> tensors;
  {
    const TensorFile file(path);
    tensors = file.tensors();
  }
  ASSERT_EQ(tensors.size(), 3 + 9 + 3 * 4u);
  for (const TensorInfo& tensor : tensors) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(tensor.end - sizeof(float));  // its last element
    float before = 0;
    file.seekg(at).read(reinterpret_cast<char*>(&before), sizeof before);
    file.seekp(at).write(reinterpret_cast<const char*>(&kNan), sizeof kNan).flush();
    const auto named = AllOf(HasSubstr(tensor.name + ": expected weights that are finite"), HasSubstr("got nan"));
    EXPECT_THAT(error_of([&] { load_weights(pool, model.path(), config, all, {}); }), named);
    EXPECT_THAT(error_of([&] {
                  convert_model(pool, model.path(), config, FormatChoice::all(WeightFormat::kInt8),
                                model.path() + "/converted", [](std::size_t, std::size_t) {});
                }),
                named);
    EXPECT_FALSE(std::filesystem::exists(model.path() + "/converted"));
    EXPECT_FALSE(std::filesystem::exists(model.path() + "/converted.partial"));
    file.seekp(at).write(reinterpret_cast<const char*>(&before), sizeof before).flush();
  }
  load_weights(pool, model.path(), config, all, {});
}

}  // namespace
}  // namespace foe
