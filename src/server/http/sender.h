// The bytes that are on their way to one client. The system takes them as fast as the client reads.
//
// All calls come from the thread that runs the socket's io_context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include <boost/asio/ip/tcp.hpp>

namespace foe {

class HttpSender {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using Done = std::function<void(boost::system::error_code)>;

  // `total` counts the unread bytes of all senders together. `socket` and `total` must outlive this.
  HttpSender(Socket& socket, std::size_t& total) : socket_(socket), total_(total) {}
  ~HttpSender() { clear(); }
  HttpSender(const HttpSender&) = delete;
  HttpSender& operator=(const HttpSender&) = delete;

  // Appends bytes. Nothing is sent until flush().
  void queue(std::string bytes);
  // Drops all bytes. While flushing(), the socket must have been closed before.
  void clear();
  bool empty() const { return pieces_.empty(); }
  // Returns the bytes in memory: pieces that the system has not taken completely.
  std::size_t unread() const { return unread_; }

  bool flushing() const { return flushing_; }
  // Sends all that is queued, including what is queued meanwhile, and then calls `done`, which is called with an error
  // if the client is gone. Must not be called while flushing(). `done` must keep the owner of this and of the socket
  // alive.
  void flush(Done done);

  // Returns how many bytes the system has that the client's system has not acknowledged.
  std::size_t in_transit() const;
  // Whether the client's system has taken any bytes since the last call.
  bool progressed();

 private:
  Socket& socket_;
  std::size_t& total_;
  std::deque<std::string> pieces_;
  std::size_t offset_ = 0;  // how much of the first piece the system has taken
  std::size_t unread_ = 0;
  std::uint64_t sent_ = 0, seen_ = 0;
  bool flushing_ = false;
};

}  // namespace foe
