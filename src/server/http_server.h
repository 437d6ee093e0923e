// HTTP/1.1 as far as the API needs it: whole requests in, whole or streamed replies out, and word when a client leaves
// before its reply has ended.
//
// Everything runs on the thread that runs the io_context.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace foe {

struct HttpRequest {
  std::string method;
  std::string path;  // without the query
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case

  // The value of the first such header, or empty. `name` is in lower case.
  const std::string& header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::string headers = "";  // more of them, each ending in \r\n
};

// The place to answer one request: send(), or begin_stream(), write()s and end(). Nothing happens on calls after the
// client has left.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  // More headers for the reply, whatever it becomes; each ends in \r\n.
  virtual void add_headers(std::string_view lines) = 0;
  virtual void send(const HttpResponse& response) = 0;
  // 200, and a body that comes in pieces.
  virtual void begin_stream(const std::string& content_type) = 0;
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Called at most once, if the client leaves (or half-closes the connection, which counts as that) before the reply
  // has ended, or does not read it.
  virtual void when_gone(std::function<void()> action) = 0;
};

// Answers now, or keeps the reply and answers later.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpReply>)>;

struct HttpLimits {
  std::size_t header_bytes = 16 << 10;
  std::size_t body_bytes = 4 << 20;
  std::size_t connections = 512;
  std::size_t unread_bytes = 4 << 20;  // of a reply that its client does not read
  int request_seconds = 30;            // for a request to come in whole, or a write to make progress
  int idle_seconds = 75;               // between requests on one connection
};

class HttpServer {
 public:
  // Binds and listens. Port 0 takes a free one. Throws Error for an address that cannot be had.
  HttpServer(boost::asio::io_context& io, const std::string& host, int port, const HttpLimits& limits,
             HttpHandler handler);
  ~HttpServer();

  int port() const;
  // No new connections, and no further requests on those there are.
  void close();
  // Connections with a reply that has not been sent to its end.
  std::size_t replying() const;

  struct State;  // what the connections share

 private:
  std::shared_ptr<State> state_;
};

}  // namespace foe
