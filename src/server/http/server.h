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
  std::string path;  // without scheme, host and query
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string id = "";                                       // for whoever answers it
  std::shared_ptr<void> room = nullptr;                      // a large body's share of HttpLimits::total_body_bytes

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
// client has left. A reply of any length reaches a client that reads it, however slowly.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  // More headers for the reply, whatever it becomes; each ends in \r\n.
  virtual void add_headers(std::string_view lines) = 0;
  virtual void send(HttpResponse response) = 0;
  // 200, and a body that comes in pieces.
  virtual void begin_stream(const std::string& content_type) = 0;
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Called at most once, if the client leaves (or half-closes the connection, which counts as that) before the reply
  // has ended, or does not read what there is of it.
  virtual void when_gone(std::function<void()> action) = 0;
};

// Answers now, or keeps the reply and answers later. A request that it throws at ends with its connection.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpReply>)>;
// Looks at a request before its body is read, and may give it an id and its reply more headers. If it answers, the body
// is never read.
using HttpGate = std::function<void(HttpRequest&, const std::shared_ptr<HttpReply>&)>;

struct HttpLimits {
  std::size_t header_bytes = 16 << 10;
  std::size_t body_bytes = 4 << 20;
  std::size_t total_body_bytes = 64 << 20;  // of all requests that are read, or wait to be; others wait in line
  std::size_t connections = 512;
  std::size_t unread_bytes = 4 << 20;          // of a stream whose client is slow, once all together are past:
  std::size_t total_unread_bytes = 256 << 20;  // of all replies
  int request_seconds = 30;  // for a request to come in whole, or a client to take some more of its reply
  int idle_seconds = 75;     // between requests on one connection
};

class HttpServer {
 public:
  // Binds and listens. Port 0 takes a free one. Throws Error for an address that cannot be had.
  HttpServer(boost::asio::io_context& io, const std::string& host, int port, const HttpLimits& limits,
             HttpHandler handler, HttpGate gate = nullptr);
  ~HttpServer();

  int port() const;
  // No new connections, and no further requests on those there are.
  void close();
  // Connections with a reply that has not been sent to its end.
  std::size_t replying() const;
  // Bytes of replies, in memory, that clients have not taken yet. Whoever makes long replies waits while there are
  // more than HttpLimits::total_unread_bytes.
  std::size_t unread() const;

  struct State;  // what the connections share

 private:
  std::shared_ptr<State> state_;
};

}  // namespace foe
