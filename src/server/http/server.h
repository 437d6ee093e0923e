// An HTTP/1.1 server with what the API needs: it reads whole requests, sends whole or streamed replies, and reports
// when a client leaves before its reply has ended.
//
// All functions are called on the thread that runs the io_context, and all callbacks run there.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/limits.h"

namespace boost::asio {
class io_context;
}

namespace foe {

struct HttpRequest {
  std::string method;
  std::string path;  // without scheme, host and query
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string id = "";                                       // set by the HttpGate
  std::shared_ptr<void> room = nullptr;                      // a large body's share of HttpLimits::total_body_bytes

  // Returns the value of the first header with this name, or an empty string. `name` must be in lower case.
  const std::string& header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::string headers = "";  // further header lines, each ending in \r\n
};

// The reply to one request: either send(), or begin_stream(), any number of write() and end(). Calls after the client
// has left do nothing. A reply of any length reaches a client that keeps reading, however slowly.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  // Adds header lines, each ending in \r
  // , to whatever reply is sent.
  virtual void add_headers(std::string_view lines) = 0;
  virtual void send(HttpResponse response) = 0;
  // Begins a reply with status 200 whose body comes in pieces.
  virtual void begin_stream(const std::string& content_type) = 0;
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Sets a function that is called at most once: if the client leaves before the reply has ended, half-closes the
  // connection, which counts as leaving, or does not read the reply.
  virtual void when_gone(std::function<void()> action) = 0;
};

// Answers a request now, or keeps the reply and answers later. If it throws, the connection is closed.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpReply>)>;
// Looks at the head of a request before the body is read. It may set the request's id and add headers to its reply. If
// it answers, the body is never read.
using HttpGate = std::function<void(HttpRequest&, const std::shared_ptr<HttpReply>&)>;

class HttpServer {
 public:
  // Binds and listens; port 0 takes any free port. `io` must outlive this. Throws Error if the address cannot be bound.
  HttpServer(boost::asio::io_context& io, const std::string& host, int port, const HttpLimits& limits,
             HttpHandler handler, HttpGate gate = nullptr);
  ~HttpServer();

  int port() const;
  // Stops accepting connections, and further requests on open connections.
  void close();
  // Returns how many connections have a reply that has not been sent completely.
  std::size_t replying() const;
  // Returns how many bytes of replies are in memory, because clients have not taken them yet. Callers should not begin
  // long replies while there are more than HttpLimits::total_unread_bytes.
  std::size_t unread() const;

  struct State;  // what the connections share

 private:
  std::shared_ptr<State> state_;
};

}  // namespace foe
