// What is on its way to one client, in order. The system takes from it as fast as the client reads.
//
// Runs on the thread that runs the socket's io_context.
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

  // `socket` and `total`, the unread bytes of all senders together, outlive this.
  HttpSender(Socket& socket, std::size_t& total) : socket_(socket), total_(total) {}
  ~HttpSender() { clear(); }
  HttpSender(const HttpSender&) = delete;
  HttpSender& operator=(const HttpSender&) = delete;

  // Adds bytes behind those that are there. Nothing is sent until flush().
  void queue(std::string bytes);
  void clear();
  bool empty() const { return pieces_.empty(); }
  std::size_t unread() const { return unread_; }  // bytes in memory

  bool flushing() const { return flushing_; }
  // Calls `done` once all that is queued, also meanwhile, is in the system's hands, or the client is gone. Not while
  // flushing. `done` keeps the owner of this and of the socket alive.
  void flush(Done done);

  // Bytes that the system has and the client's has not taken yet.
  std::size_t in_transit() const;
  // Whether the client's system has taken any since this was last asked.
  bool progressed();

 private:
  Socket& socket_;
  std::size_t& total_;
  std::deque<std::string> pieces_;
  std::size_t offset_ = 0;  // of the first piece that the system has taken
  std::size_t unread_ = 0;
  std::uint64_t sent_ = 0, seen_ = 0;
  bool flushing_ = false;
};

}  // namespace foe
