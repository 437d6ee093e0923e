#include "server/http_server.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <optional>
#include <set>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <fmt/core.h>

#include "base/error.h"
#include "server/api_error.h"

namespace foe {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {
class Connection;
}

struct HttpServer::State {
  State(asio::io_context& io, const HttpLimits& http_limits, HttpHandler http_handler)
      : limits(http_limits), handler(std::move(http_handler)), acceptor(io), retry(io) {}

  HttpLimits limits;
  HttpHandler handler;
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  bool closing = false;
  std::set<Connection*> connections;
};

namespace {

constexpr std::size_t kReadBytes = 16 << 10;
constexpr int kLingerSeconds = 2;

std::string head_of(int status, const std::string& headers) {
  const auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  return fmt::format("HTTP/1.1 {} {}\r\n{}\r\n", status, std::string(reason), headers);
}

// One client. Reads all the time, while it replies too: so it sees when the client leaves. Its reads keep it alive.
class Connection : public HttpReply, public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, std::shared_ptr<HttpServer::State> server)
      : socket_(std::move(socket)), timer_(socket_.get_executor()), server_(std::move(server)) {
    server_->connections.insert(this);
  }
  ~Connection() override { server_->connections.erase(this); }

  void start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    next_request();
    read();
  }
  void refuse_connection() {
    read();
    next_request();
    fail_request(503, "too many connections", "Retry-After: 1\r\n");
  }
  bool replying() const { return phase_ == Phase::kReplying; }
  bool waiting() const { return phase_ == Phase::kReading; }
  void close() {
    phase_ = Phase::kClosed;
    timer_.cancel();
    error_code ignored;
    socket_.close(ignored);
  }

  // --- HttpReply ---

  void add_headers(std::string_view lines) override { more_headers_ += lines; }

  void send(const HttpResponse& response) override {
    const std::string headers = fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n{}{}{}", response.content_type,
                                            response.body.size(), response.headers, more_headers_, connection_header());
    send_bytes(head_of(response.status, headers));
    if (!head_only_) send_bytes(response.body);
    end_reply();
  }

  void begin_stream(const std::string& content_type) override {
    if (http_1_0_) keep_alive_ = false;  // the end of the connection is the end of the body
    send_bytes(head_of(
        200, fmt::format("Content-Type: {}\r\nCache-Control: no-cache\r\n{}{}{}", content_type,
                         http_1_0_ ? "" : "Transfer-Encoding: chunked\r\n", more_headers_, connection_header())));
  }

  void write(std::string_view piece) override {
    if (piece.empty()) return;  // an empty chunk would end the body
    send_bytes(http_1_0_ ? std::string(piece) : fmt::format("{:x}\r\n{}\r\n", piece.size(), piece));
  }

  void end() override {
    if (!http_1_0_) send_bytes("0\r\n\r\n");
    end_reply();
  }

  void when_gone(std::function<void()> action) override { gone_ = std::move(action); }

 private:
  enum class Phase {
    kReading,    // a request, or waiting for one
    kReplying,   // from the last byte of the request to the last of the reply
    kLingering,  // all is sent, and what still comes is thrown away: closing at once would discard the reply
    kClosed,
  };
  using Parser = http::request_parser<http::string_body>;

  // --- requests ---

  void next_request() {
    phase_ = Phase::kReading;
    gone_ = nullptr;
    ended_ = continued_ = head_only_ = false;
    more_headers_.clear();
    parser_.emplace();
    parser_->eager(true);
    parser_->header_limit(static_cast<std::uint32_t>(server_->limits.header_bytes));
    parser_->body_limit(server_->limits.body_bytes);
    set_timer(server_->limits.idle_seconds);
  }

  void read() {
    // One who sends more while a reply is on its way has to wait.
    if (reading_ || phase_ == Phase::kClosed || input_.size() > kReadBytes) return;
    reading_ = true;
    socket_.async_read_some(input_.prepare(kReadBytes), [self = shared_from_this(), this](error_code error, auto n) {
      reading_ = false;
      if (phase_ == Phase::kClosed) return;
      if (error) return leave();
      input_.commit(n);
      if (phase_ == Phase::kReading) parse();
      if (phase_ == Phase::kLingering) input_.consume(input_.size());
      read();
    });
  }

  void parse() {
    error_code error;
    if (!parser_->got_some()) set_timer(server_->limits.request_seconds);
    while (input_.size() > 0 && !parser_->is_done()) {
      const std::size_t used = parser_->put(input_.data(), error);
      input_.consume(used);
      if (error == http::error::need_more || (!error && used == 0)) break;
      if (error) return refuse_request(error);
    }
    if (parser_->is_done()) return dispatch();
    if (parser_->is_header_done() && !continued_ && parser_->get()[http::field::expect] == "100-continue") {
      continued_ = true;
      send_bytes("HTTP/1.1 100 Continue\r\n\r\n");
    }
  }

  void refuse_request(const error_code& error) {
    if (error == http::error::header_limit)
      return fail_request(431, fmt::format("expected headers of at most {} bytes", server_->limits.header_bytes));
    if (error == http::error::body_limit)
      return fail_request(413, fmt::format("expected a body of at most {} bytes", server_->limits.body_bytes));
    fail_request(400, "expected an HTTP request, got: " + error.message());
  }

  // Answers what is no request, or a part of one; the connection cannot be used after it.
  void fail_request(int status, const std::string& message, const std::string& headers = "") {
    phase_ = Phase::kReplying;
    keep_alive_ = false;
    send({.status = status, .body = error_body(status, message), .headers = headers});
  }

  void dispatch() {
    auto request = parser_->release();
    phase_ = Phase::kReplying;
    timer_.cancel();
    http_1_0_ = request.version() < 11;
    keep_alive_ = request.keep_alive() && !server_->closing;
    head_only_ = request.method() == http::verb::head;
    const std::string target(request.target());
    HttpRequest plain{
        std::string(request.method_string()), target.substr(0, target.find('?')), std::move(request.body()), {}};
    for (const auto& field : request) {
      std::string name(field.name_string());
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      plain.headers.emplace_back(std::move(name), std::string(field.value()));
    }
    server_->handler(std::move(plain), shared_from_this());
  }

  // --- replies ---

  std::string connection_header() const { return keep_alive_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n"; }

  void end_reply() {
    ended_ = true;
    gone_ = nullptr;
    if (sending_.empty()) reply_sent();
  }

  void send_bytes(std::string_view bytes) {
    if (phase_ == Phase::kClosed) return;
    pending_ += bytes;
    if (pending_.size() > server_->limits.unread_bytes && !ended_ && !sending_.empty()) return leave();
    if (sending_.empty()) flush();
  }

  void flush() {
    sending_.swap(pending_);
    if (phase_ == Phase::kReplying) set_timer(server_->limits.request_seconds);
    asio::async_write(socket_, asio::buffer(sending_),
                      [self = shared_from_this(), this](error_code error, std::size_t) {
                        sending_.clear();
                        if (phase_ == Phase::kClosed) return;
                        if (error) return leave();
                        if (!pending_.empty()) return flush();
                        if (phase_ != Phase::kReplying) return;
                        timer_.cancel();
                        if (ended_) reply_sent();
                      });
  }

  void reply_sent() {
    if (keep_alive_ && !server_->closing) {
      next_request();
      if (input_.size() > 0) parse();
      return read();
    }
    phase_ = Phase::kLingering;
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    input_.consume(input_.size());
    set_timer(kLingerSeconds);
    read();
  }

  // --- the end ---

  // The client is gone, or as good as that. Its owner hears of it later: this may be deep in a call of write().
  void leave() {
    close();
    if (gone_) asio::post(socket_.get_executor(), std::exchange(gone_, nullptr));
  }

  void set_timer(int seconds) {
    timer_.expires_after(std::chrono::seconds(seconds));
    timer_.async_wait([weak = weak_from_this()](error_code error) {
      if (const auto self = weak.lock(); self && !error) self->timed_out();
    });
  }

  void timed_out() {
    if (timer_.expiry() > std::chrono::steady_clock::now()) return;  // set anew while this was on its way
    if (phase_ == Phase::kReading && parser_->got_some())
      return fail_request(408, fmt::format("expected the whole request within {} s", server_->limits.request_seconds));
    leave();
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  std::shared_ptr<HttpServer::State> server_;
  Phase phase_ = Phase::kReading;
  bool reading_ = false;
  boost::beast::flat_buffer input_;  // what has come and is not parsed yet
  std::optional<Parser> parser_;
  bool continued_ = false;  // "100 Continue" was sent
  bool http_1_0_ = false, keep_alive_ = false, head_only_ = false;
  std::string more_headers_;       // of the reply
  std::string sending_, pending_;  // in the system's hands, and to follow
  bool ended_ = false;             // the reply is complete in those
  std::function<void()> gone_;
};

void accept(const std::shared_ptr<HttpServer::State>& state) {
  state->acceptor.async_accept([state](error_code error, tcp::socket socket) {
    if (state->closing) return;
    if (error) {  // out of file descriptors, most likely: some will be free again
      state->retry.expires_after(std::chrono::milliseconds(100));
      return state->retry.async_wait([state](error_code cancelled) {
        if (!cancelled) accept(state);
      });
    }
    // A few more than the limit are told so; the rest are closed without a word.
    const std::size_t open = state->connections.size();
    if (open < state->limits.connections)
      std::make_shared<Connection>(std::move(socket), state)->start();
    else if (open < state->limits.connections + 64)
      std::make_shared<Connection>(std::move(socket), state)->refuse_connection();
    accept(state);
  });
}

}  // namespace

const std::string& HttpRequest::header(std::string_view name) const {
  static const std::string kNone;
  for (const auto& [field, value] : headers)
    if (field == name) return value;
  return kNone;
}

HttpServer::HttpServer(asio::io_context& io, const std::string& host, int port, const HttpLimits& limits,
                       HttpHandler handler)
    : state_(std::make_shared<State>(io, limits, std::move(handler))) {
  error_code error;
  const auto address = asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
  if (error) fail("--host: expected an IP address of this machine, got '{}'", host);
  const tcp::endpoint endpoint(address, static_cast<unsigned short>(port));
  tcp::acceptor& acceptor = state_->acceptor;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) fail("cannot listen on {} port {}: {}", host, port, error.message());
  accept(state_);
}

HttpServer::~HttpServer() {
  close();
  // What connections keep of the owner must not outlive it.
  state_->handler = nullptr;
  const std::set<Connection*> connections = state_->connections;
  for (Connection* connection : connections) connection->close();
}

int HttpServer::port() const {
  return state_->acceptor.local_endpoint().port();
}

void HttpServer::close() {
  if (std::exchange(state_->closing, true)) return;
  error_code ignored;
  state_->acceptor.close(ignored);
  state_->retry.cancel();
  for (Connection* connection : std::set<Connection*>(state_->connections))
    if (connection->waiting()) connection->close();
}

std::size_t HttpServer::replying() const {
  std::size_t count = 0;
  for (const Connection* connection : state_->connections) count += connection->replying();
  return count;
}

}  // namespace foe
