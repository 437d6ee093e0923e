#include "train/run.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <limits>
#include <optional>
#include <unistd.h>

#include <sys/file.h>

#include "base/clock.h"
#include "base/error.h"
#include "core/model_tensors.h"
#include "kernels/peak.h"
#include "trace/route_writer.h"
#include "train/flops.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/trainer.h"

namespace foe::train {
namespace {

// Locks the directory, because two runs in it would overwrite each other's files. The system releases the lock when the
// process ends, also if it crashes.
class DirectoryLock {
 public:
  explicit DirectoryLock(const std::string& dir) {
    const std::string path = dir + "/lock";
    fd_ = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd_ < 0) fail("{}: {}", path, std::strerror(errno));
    if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
    const int error = errno;
    close(fd_);
    if (error == EWOULDBLOCK)
      fail(
          "{}: expected a run directory of its own, but another run is using it; wait for its end, or choose another "
          "--run",
          dir);
    fail("{}: {}", path, std::strerror(error));
  }
  ~DirectoryLock() { close(fd_); }
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_;
};

// What the parts of a run share. All ranks have one; rank 0 leads: it alone reads the clock, writes and prints.
class Run {
 public:
  Run(const TrainConfig& config, const TokenData& data, ThreadPool& pool, const RunOptions& options, Communicator& comm)
      : config_(config),
        data_(data),
        pool_(pool),
        comm_(comm),
        trainer_(config, data, pool, comm, options.group_ranks),
        checkpoint_(config.run_dir + "/checkpoint.safetensors"),
        progress_(options.quiet || !leads(), config.steps, config.batch_tokens()),
        peak_(leads() ? measure_fma_peak(pool) : 1),
        flops_(training_flops_per_token(trainer_.layout().dims, config.sequence_length)) {
    if (lead_says(leads() && std::filesystem::exists(checkpoint_))) trainer_.load(checkpoint_);
    progress_.note("{} parameters ({} active per token), {:.1f} MFLOP per token, {}{} threads, FMA peak {:.1f} GFLOP/s",
                   parameter_count(config.model), active_parameter_count(config.model), flops_ * 1e-6,
                   comm.size() > 1 ? fmt::format("{} ranks, each with ", comm.size()) : "", pool.threads(),
                   peak_ * 1e-9);
    if (trainer_.steps_done() > 0)
      progress_.note("resuming {} after step {} of {}", config.run_dir, trainer_.steps_done(), config.steps);
  }

  // Returns false if it was stopped. `routes` is used on rank 0.
  bool train(const std::atomic<bool>* stop, bool record, RouteWriter* routes) {
    std::optional<Metrics> metrics;
    if (leads())
      metrics.emplace(config_.run_dir + "/metrics.jsonl", trainer_.steps_done(), !config_.distill_from.empty());
    while (trainer_.steps_done() < config_.steps) {
      if (leads()) measure_peak_again();
      const Clock::time_point start = Clock::now();
      const StepReport report = trainer_.step();
      const Speed speed = speed_of(seconds_since(start));
      if (record) trainer_.record_routes(routes);
      const int step = trainer_.steps_done();
      const bool last = step == config_.steps;
      const bool stopped = lead_says(stop && stop->load(std::memory_order_relaxed));
      if (metrics && (step % config_.log_every == 0 || last)) metrics->step(step, tokens(), report, speed);
      progress_.step(step, report, speed);
      if (step % config_.valid_every == 0 && !last) validate(metrics);
      // The checkpoint comes after the metrics of its step, so the file always has all steps up to the checkpoint.
      if (step % config_.checkpoint_every == 0 || last || stopped) trainer_.save(checkpoint_);
      if (stopped && !last) {
        progress_.note("stopped after step {} of {}; the same command resumes from {}", step, config_.steps,
                       checkpoint_);
        return false;
      }
    }
    finish(metrics);
    return true;
  }

  RouteForm route_form() const { return trainer_.route_form(); }
  RouteOrigin route_origin() const {
    const Dims& dims = trainer_.layout().dims;
    return {"in training", "train", 1, std::vector<int>(dims.layers, dims.experts)};
  }

  double evaluate_all() {
    const double nats =
        trainer_.evaluate(data_.valid, std::numeric_limits<std::size_t>::max(), config_.sequence_length / 2);
    progress_.note("held-out file, {} tokens, each after at least {}: {:.4f} nats per token, {:.4f} bits per byte",
                   data_.valid.tokens.size(), config_.sequence_length / 2, nats, data_.valid.bits_per_byte(nats));
    return nats;
  }

 private:
  bool leads() const { return comm_.rank() == 0; }
  // Returns what rank 0 has passed.
  bool lead_says(bool yes) {
    std::vector<std::int32_t> message{yes};
    comm_.broadcast(message);
    return message.at(0) != 0;
  }
  std::int64_t tokens() const { return static_cast<std::int64_t>(trainer_.steps_done()) * config_.batch_tokens(); }

  Speed speed_of(double seconds) const {
    const double rate = config_.batch_tokens() / seconds;
    return {rate, rate * flops_ / (peak_ * comm_.size())};
  }

  // On a shared machine the measured peak changes. Shares are relative to the highest one that this run has seen.
  void measure_peak_again() {
    if (seconds_since(peak_time_) < 10) return;
    peak_ = std::max(peak_, measure_fma_peak(pool_, 1));
    peak_time_ = Clock::now();
  }

  void validate(std::optional<Metrics>& metrics) {
    const double nats =
        trainer_.evaluate(data_.valid, static_cast<std::size_t>(config_.valid_tokens), config_.sequence_length);
    const double bits = data_.valid.bits_per_byte(nats);
    if (metrics) metrics->validation(trainer_.steps_done(), tokens(), nats, bits, false);
    progress_.note("step {}: validation loss {:.4f}, {:.4f} bits per byte", trainer_.steps_done(), nats, bits);
  }

  // This depends on the last checkpoint only, so a run that is killed in here does it again.
  void finish(std::optional<Metrics>& metrics) {
    const std::string model = config_.run_dir + "/model";
    Layout layout = trainer_.layout();
    layout.config.eos_token_ids = {data_.end_of_text};
    if (leads()) save_model(model, layout, trainer_.params(), config_.save_dtype, config_.tokenizer);
    const double nats = evaluate_all();
    if (metrics) metrics->validation(trainer_.steps_done(), tokens(), nats, data_.valid.bits_per_byte(nats), true);
    progress_.note("the model is in {}", model);
  }

  const TrainConfig& config_;
  const TokenData& data_;
  ThreadPool& pool_;
  Communicator& comm_;
  Trainer trainer_;
  std::string checkpoint_;
  Progress progress_;
  double peak_, flops_;
  Clock::time_point peak_time_ = Clock::now();
};

}  // namespace

namespace {

void require_same_tokens(const TokenData& data, Communicator& comm) {
  const auto words = [](std::uint64_t x) {
    return std::vector{static_cast<std::int32_t>(x), static_cast<std::int32_t>(x >> 32)};
  };
  std::vector<std::int32_t> lead = words(data.fingerprint);
  comm.broadcast(lead);
  if (lead != words(data.fingerprint))
    fail("rank {}: data.train: expected the tokens of rank 0, got others, of {} tokens with the hash {:016x}",
         comm.rank(), data.train.tokens.size(), data.fingerprint);
}

}  // namespace

bool run_training(const TrainConfig& config, const RunOptions& options, Communicator& comm) {
  if (config.run_dir.empty()) fail("run.dir: expected a directory for the run (or --run DIR), got none");
  const TokenData data = load_token_data(config.tokens, config.sequence_length);
  require_same_tokens(data, comm);
  std::optional<DirectoryLock> lock;
  const bool leads = comm.rank() == 0;
  if (leads) {
    std::error_code error;
    std::filesystem::create_directories(config.run_dir, error);
    if (error) fail("{}: {}", config.run_dir, error.message());
    lock.emplace(config.run_dir);
  }
  ThreadPool pool(options.threads > 0 ? options.threads : available_threads());
  Run run(config, data, pool, options, comm);
  if (options.evaluate_only) {
    run.evaluate_all();
    return true;
  }
  const bool record = !options.route_trace.empty();
  // Where groups do not sync, each routes by its own residual.
  if (const int every = config.model.group_sync_every; record && config.model.federated() && every > 1)
    fail("--route-trace: expected a model with group_sync_every = 1, got {}", every);
  if (!record || !leads) return run.train(options.stop, record, nullptr);
  RouteRecord routes(options.route_trace);
  RouteWriter writer(options.route_trace, run.route_form(), run.route_origin(), options.route_trace_bytes);
  const bool ended = run.train(options.stop, true, &writer);
  routes.finish();
  return ended;
}

bool run_training(const TrainConfig& config, const RunOptions& options) {
  const auto comm = make_self_comm();
  return run_training(config, options, *comm);
}

}  // namespace foe::train
