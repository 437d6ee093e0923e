#include "server/http/sender.h"

#include <algorithm>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <linux/sockios.h>
#include <sys/ioctl.h>

namespace foe {

namespace {
constexpr std::size_t kJoinedBytes = 64 << 10;  // short pieces are joined to at most this length
}

void HttpSender::queue(std::string bytes) {
  if (bytes.empty()) return;
  const std::size_t size = bytes.size();
  // The system may be reading the first piece, so that one is not changed.
  if (pieces_.size() > 1 && pieces_.back().size() + size <= kJoinedBytes)
    pieces_.back() += bytes;
  else
    pieces_.push_back(std::move(bytes));
  unread_ += size;
  total_ += size;
}

void HttpSender::clear() {
  total_ -= unread_;
  unread_ = offset_ = 0;
  pieces_.clear();
}

void HttpSender::flush(Done done) {
  flushing_ = !pieces_.empty();
  if (!flushing_) return done({});
  const std::string& piece = pieces_.front();
  auto taken = [this, done = std::move(done)](boost::system::error_code error, std::size_t n) mutable {
    flushing_ = false;
    if (error || pieces_.empty()) return done(error);
    sent_ += n;
    offset_ += n;
    if (offset_ == pieces_.front().size()) {
      total_ -= offset_;
      unread_ -= offset_;
      pieces_.pop_front();
      offset_ = 0;
    }
    flush(std::move(done));
  };
  socket_.async_write_some(boost::asio::buffer(piece.data() + offset_, piece.size() - offset_), std::move(taken));
}

std::size_t HttpSender::in_transit() const {
  int bytes = 0;
  if (ioctl(socket_.native_handle(), SIOCOUTQ, &bytes) != 0 || bytes < 0) return 0;
  return static_cast<std::size_t>(bytes);
}

bool HttpSender::progressed() {
  const std::uint64_t taken = sent_ - std::min<std::uint64_t>(sent_, in_transit());
  return taken > std::exchange(seen_, taken);
}

}  // namespace foe
