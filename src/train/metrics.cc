#include "train/metrics.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace foe::train {
namespace {

// Returns the length of the beginning of the file that has only whole lines of steps up to `last_step`. The score of
// the complete held-out file is cut off, too: it ends a run, and a run that resumes writes it again.
std::uintmax_t kept_length(const std::string& path, int last_step) {
  std::ifstream in(path, std::ios::binary);
  std::uintmax_t kept = 0;
  for (std::string line; std::getline(in, line) && !in.eof();) {  // at eof the line is incomplete
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
    const auto step = object.is_object() ? object.find("step") : object.end();
    if (step == object.end() || !step->is_number_integer() || step->get<std::int64_t>() > last_step ||
        object.contains("complete"))
      break;
    kept += line.size() + 1;
  }
  return kept;
}

}  // namespace

Metrics::Metrics(const std::string& path, int steps_done, bool distilled) : path_(path), distilled_(distilled) {
  std::error_code error;
  if (std::filesystem::exists(path)) std::filesystem::resize_file(path, kept_length(path, steps_done), error);
  if (error) fail("{}: {}", path, error.message());
  file_.reset(std::fopen(path.c_str(), "ab"));
  if (!file_) fail("{}: {}", path, std::strerror(errno));
}

void Metrics::step(int step, std::int64_t tokens, const StepReport& report, const Speed& speed) {
  write(
      fmt::format("{{\"step\":{},\"tokens\":{},\"loss\":{:.5f},\"balance_loss\":{:.5f},\"z_loss\":{:.5f},"
                  "\"grad_norm\":{:.5f},\"lr\":{:.6g},\"tokens_per_s\":{:.1f},\"peak_share\":{:.4f}{}}}\n",
                  step, tokens, report.loss, report.router.balance, report.router.z, report.gradient_norm,
                  report.learning_rate, speed.tokens_per_second, speed.peak_share,
                  distilled_ ? fmt::format(",\"divergence\":{:.5f}", report.divergence) : ""));
}

void Metrics::validation(int step, std::int64_t tokens, double nats_per_token, double bits_per_byte, bool complete) {
  write(fmt::format("{{\"step\":{},\"tokens\":{},\"valid_loss\":{:.5f},\"valid_bits_per_byte\":{:.5f}{}}}\n", step,
                    tokens, nats_per_token, bits_per_byte, complete ? ",\"complete\":true" : ""));
}

void Metrics::write(const std::string& line) {
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0)
    fail("{}: {}", path_, std::strerror(errno));
}

}  // namespace foe::train
