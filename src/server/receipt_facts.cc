#include "server/receipt_facts.h"

#include <memory>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <spdlog/spdlog.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "weights/identity.h"

namespace foe {

ReceiptFacts::ReceiptFacts(boost::asio::io_context& io, ReceiptModel model, const std::string& model_dir)
    : io_(io), model_(std::move(model)) {
  try {
    folder_.emplace(model_dir);
  } catch (const Error& error) {
    error_ = error.what();
  }
}

void ReceiptFacts::ranks_up(const std::string& formats) {
  if (!std::exchange(up_, true)) model_.engine.formats = formats;
  release();
}

void ReceiptFacts::when_known(HttpReply& reply, std::function<void()> then) {
  if (known()) return then();
  const auto gone = std::make_shared<bool>(false);
  reply.when_gone([gone] { *gone = true; });
  waiting_.push_back([gone, then = std::move(then)] {
    if (!*gone) then();
  });
  if (model_.weights.empty() && !thread_.joinable()) compute();
}

void ReceiptFacts::compute() {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    std::string weights, error;
    const auto start = Clock::now();
    try {
      ThreadPool pool(1);
      weights = weights_sha256(pool, *folder_, [&] {
        if (stop.stop_requested()) fail("the server is shutting down");
      });
    } catch (const std::exception& failed) {
      error = failed.what();
    }
    boost::asio::post(io_, [this, weights, error, seconds = seconds_since(start)] {
      spdlog::info("the weights' digest, for receipts, took {:.2f} s: {}", seconds, weights + error);
      model_.weights = weights;
      if (!error.empty()) return give_up(error);
      release();
    });
  });
}

void ReceiptFacts::give_up(const std::string& reason) {
  if (error_.empty()) error_ = reason;
  release();
}

void ReceiptFacts::release() {
  if (!known()) return;
  for (const auto& then : std::exchange(waiting_, {})) then();
}

const ReceiptModel& ReceiptFacts::model() const {
  if (!error_.empty()) fail("no receipt: {}", error_);
  return model_;
}

}  // namespace foe
