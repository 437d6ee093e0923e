#include "weights/expert_store.h"

#include <chrono>
#include <fcntl.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "core/change_config.h"
#include "core/configs.h"
#include "experts_of.h"
#include "model/random_model.h"
#include "weights/convert.h"

namespace foe {
namespace {

// Lets the page cache forget a file.
void evict(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(file, 0);
  fsync(file);
  EXPECT_EQ(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
  close(file);
}

// Whether the page behind the middle of a matrix is in memory.
bool in_memory(const PackedMatrix& w) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto middle = (reinterpret_cast<std::uintptr_t>(w.data) + w.bytes() / 2) / page * page;
  unsigned char resident = 0;
  EXPECT_EQ(mincore(reinterpret_cast<void*>(middle), page, &resident), 0);
  return resident & 1;
}

TEST(ExpertStore, MappedExpertsAreReadWhenTheyAreExpected) {
  ModelConfig config = small_config();
  config.hidden_size = 512;
  set(config, &ExpertsConfig::width, 2048);
  set_layers(config, 1);
  const RandomModel original(config);
  const TempFolder folder;
  ThreadPool pool(2);
  convert_model(pool, original.path(), config, FormatChoice::all(WeightFormat::kBF16), folder / "converted",
                [](std::size_t, std::size_t) {});
  const Weights weights = load_weights(pool, folder / "converted", config, whole_share(config), {});
  const std::span<const ExpertWeights> experts = experts_of(weights, 0);
  evict(folder / "converted/model.safetensors");
  if (in_memory(experts[9].gate_up)) GTEST_SKIP() << "the file system keeps what it is asked to forget";
  const int expected[] = {9};
  weights.experts->expect(0, expected);
  // The system reads in its own time.
  for (int i = 0; i < 1000 && !(in_memory(experts[9].gate_up) && in_memory(experts[9].down)); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(in_memory(experts[9].gate_up));
  EXPECT_TRUE(in_memory(experts[9].down));
  EXPECT_FALSE(in_memory(experts[3].gate_up));
}

}  // namespace
}  // namespace foe
