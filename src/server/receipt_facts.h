// What the receipts of a server have in common (server/api/receipt.h). The digest of the weights takes as long as
// reading the model, so it is computed when the first receipt is asked for, on a thread of its own.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/api/receipt.h"
#include "server/http/server.h"
#include "weights/tensor_folder.h"

namespace boost::asio {
class io_context;
}

namespace foe {

// All calls come from the thread of `io`, which must outlive this.
class ReceiptFacts {
 public:
  // Maps the tensors, so that they are those of the start even if the folder is replaced. `model` lacks the digest of
  // the weights, and the formats that they have in memory.
  ReceiptFacts(boost::asio::io_context& io, ReceiptModel model, const std::string& model_dir);

  // The ranks are up, and say what formats they have.
  void ranks_up(const std::string& formats);
  // Calls `then` when all is known, or after give_up(): at once, or later on the event loop, unless the client of
  // `reply` leaves before.
  void when_known(HttpReply& reply, std::function<void()> then);
  // How many functions wait for that.
  std::size_t waiting() const { return waiting_.size(); }
  // Calls all functions that wait, and from now on those that come.
  void give_up(const std::string& reason);
  // Throws Error if the weights cannot be read, or after give_up().
  const ReceiptModel& model() const;

 private:
  bool known() const { return !error_.empty() || (up_ && !model_.weights.empty()); }
  void compute();
  void release();

  boost::asio::io_context& io_;
  ReceiptModel model_;
  std::optional<TensorFolder> folder_;
  bool up_ = false;
  std::string error_;
  std::vector<std::function<void()>> waiting_;
  std::jthread thread_;  // reads the folder
};

}  // namespace foe
