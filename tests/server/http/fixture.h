// An HTTP server on a thread of its own, and clients that send exactly the bytes that a test wants.
#pragma once

#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "server/http/server.h"

namespace foe {

// How long a test waits for something that must come. It is long, because it only matters if the test fails.
inline constexpr int kPatienceMs = 20000;

// A client that sends exactly the bytes that the test wants.
class HttpTestClient {
 public:
  explicit HttpTestClient(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~HttpTestClient() { leave(); }
  void leave() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

  void send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;  // the server has closed the connection: read_all() returns why
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // Returns all bytes that come until `end` has come or the server closes the connection.
  std::string read_until(const std::string& end) const {
    std::string got;
    while (end.empty() || got.find(end) == got.npos) {
      char bytes[4096];
      pollfd poll_fd{fd_, POLLIN, 0};
      if (poll(&poll_fd, 1, kPatienceMs) <= 0) {
        ADD_FAILURE() << "nothing more came after: " << got;
        break;
      }
      const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
      if (n <= 0) break;
      got.append(bytes, static_cast<std::size_t>(n));
    }
    return got;
  }
  std::string read_all() const { return read_until(""); }
  // Reads a head, and returns a body of so many bytes after it, read `piece` bytes at a time with pauses.
  std::string read_body(std::size_t bytes, std::size_t piece = 1 << 20, int pause_us = 0) const {
    std::string got;
    std::size_t begin = got.npos;
    while (begin == got.npos || got.size() < begin + bytes) {
      const std::size_t size = got.size();
      got.resize(size + piece);
      const ssize_t n = recv(fd_, got.data() + size, piece, 0);
      got.resize(size + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      if (n <= 0) break;
      if (begin == got.npos && (begin = got.find("\r\n\r\n")) != got.npos) begin += 4;
      if (pause_us > 0) usleep(static_cast<unsigned>(pause_us));
    }
    return begin == got.npos ? "" : got.substr(begin);
  }

 private:
  int fd_;
};

// Returns bytes of which no part is equal to another.
inline std::string long_text(std::size_t bytes) {
  std::string text;
  text.reserve(bytes + 16);
  for (std::uint64_t i = 0; text.size() < bytes; ++i) fmt::format_to(std::back_inserter(text), "{:x},", i * i);
  text.resize(bytes);
  return text;
}

// A server with its thread. /echo replies with the body, /stream in pieces, and /long with as many bytes as the body
// says; /wait keeps the reply for the test; /throw throws. Its gate refuses /gated.
class HttpTestServer {
 public:
  explicit HttpTestServer(const HttpLimits& limits = {}) {
    server_.emplace(
        io_, "127.0.0.1", 0, limits,
        [this](HttpRequest request, std::shared_ptr<HttpReply> reply) { handle(request, reply); },
        [this](HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
          ++heads_;
          if (request.path == "/gated") reply->send({.status = 401, .body = "no"});
        });
    thread_ = std::thread([this] { io_.run(); });
  }
  ~HttpTestServer() {
    on_thread([this] {
      kept_.clear();
      server_.reset();
    });
    work_.reset();
    thread_.join();
  }

  int port() const { return server_->port(); }
  // Returns how many heads of requests have come.
  int heads() {
    int count = 0;
    on_thread([&] { count = heads_; });
    return count;
  }
  std::size_t unread() {
    std::size_t bytes = 0;
    on_thread([&] { bytes = server_->unread(); });
    return bytes;
  }
  std::size_t replying() {
    std::size_t count = 0;
    on_thread([&] { count = server_->replying(); });
    return count;
  }
  void close() {
    on_thread([this] { server_->close(); });
  }
  // Runs an action on the server's thread.
  void on_thread(const std::function<void()>& action) {
    std::promise<void> done;
    boost::asio::post(io_, [&] {
      action();
      done.set_value();
    });
    done.get_future().wait();
  }
  // Returns the reply to the n-th request for /wait.
  std::shared_ptr<HttpReply> kept(std::size_t n) {
    for (int i = 0; i < kPatienceMs; ++i) {
      std::shared_ptr<HttpReply> reply;
      on_thread([&] {
        if (n < kept_.size()) reply = kept_[n];
      });
      if (reply) return reply;
      usleep(1000);
    }
    throw std::runtime_error("the request did not come");
  }
  std::future<void> gone() { return gone_.get_future(); }

 private:
  void handle(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    if (request.path == "/echo")
      return reply->send({.status = 200, .body = request.method + ":" + request.body, .content_type = "text/plain"});
    if (request.path == "/long") return reply->send({.body = long_text(std::stoul(request.body))});
    if (request.path == "/throw") throw std::bad_alloc();
    if (request.path == "/wait") {
      kept_.push_back(reply);
      return reply->when_gone([this] { gone_.set_value(); });
    }
    reply->begin_stream("text/event-stream");
    reply->write("one");
    reply->write("");
    reply->write("two");
    reply->end();
  }

  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};
  std::optional<HttpServer> server_;
  std::thread thread_;
  int heads_ = 0;
  std::vector<std::shared_ptr<HttpReply>> kept_;
  std::promise<void> gone_;
};

// Waits until a condition holds that must hold sometime; otherwise the test fails.
inline void wait_until(const std::function<bool()>& condition) {
  for (int i = 0; !condition(); ++i) {
    if (i == kPatienceMs) throw std::runtime_error("waited in vain");
    usleep(1000);
  }
}

inline std::string post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n{}", path, headers, body.size(), body);
}

}  // namespace foe
