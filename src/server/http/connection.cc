#include "server/http/connection.h"

#include <chrono>
#include <exception>
#include <functional>
#include <utility>

#include <boost/asio/post.hpp>
#include <fmt/core.h>
#include <spdlog/spdlog.h>

#include "server/http/api_error.h"
#include "server/http/head.h"
#include "server/http/sender.h"

namespace foe {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

constexpr std::size_t kReadBytes = 16 << 10;
constexpr int kLingerSeconds = 2;

std::string head_of(int status, const std::string& headers) {
  const auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(status)));
  return fmt::format("HTTP/1.1 {} {}\r\n{}\r\n", status, std::string(reason), headers);
}

}  // namespace

HttpServer::State::State(asio::io_context& io, const HttpLimits& http_limits, HttpHandler http_handler,
                         HttpGate http_gate)
    : limits(http_limits),
      handler(std::move(http_handler)),
      gate(std::move(http_gate)),
      acceptor(io),
      retry(io),
      body_room(std::make_shared<BodyRoom>(limits.total_body_bytes)) {}

HttpConnection::HttpConnection(asio::ip::tcp::socket socket, std::shared_ptr<HttpServer::State> server)
    : socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      server_(std::move(server)),
      sender_(std::make_unique<HttpSender>(socket_, server_->unread)) {
  server_->connections.insert(this);
}

HttpConnection::~HttpConnection() {
  server_->connections.erase(this);
}

void HttpConnection::start() {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  next_request();
  read();
}

void HttpConnection::refuse() {
  read();
  next_request();
  fail_request(503,
               fmt::format("too many connections: this server takes at most {} (--max-connections)",
                           server_->limits.connections),
               "Retry-After: 1\r\n");
}

void HttpConnection::close() {
  phase_ = Phase::kClosed;
  timer_.cancel();
  room_.reset();
  error_code ignored;
  socket_.close(ignored);
  sender_->clear();
}

// --- requests ---

void HttpConnection::next_request() {
  phase_ = Phase::kReading;
  gone_ = nullptr;
  ended_ = continued_ = head_only_ = has_head_ = wants_room_ = false;
  ++request_number_;
  more_headers_.clear();
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(server_->limits.header_bytes));
  parser_->body_limit(server_->limits.body_bytes);
  set_timer(server_->limits.idle_seconds);
}

void HttpConnection::read() {
  // A client that sends more while its reply is on its way, or before there is room for its body, has to wait.
  if (reading_ || phase_ == Phase::kClosed || input_.size() > kReadBytes) return;
  reading_ = true;
  const auto came = [self = shared_from_this(), this](error_code error, std::size_t n) {
    reading_ = false;
    if (phase_ == Phase::kClosed) return;
    if (error) return leave();
    guard([&] {
      input_.commit(n);
      if (phase_ == Phase::kReading) parse();
      if (phase_ == Phase::kLingering) input_.consume(input_.size());
      read();
    });
  };
  socket_.async_read_some(input_.prepare(kReadBytes), came);
}

// Runs an action that reads or answers a request. If memory runs out, only this request ends.
void HttpConnection::guard(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    spdlog::error("a connection was closed before its request was answered: {}", error.what());
    leave();
  }
}

void HttpConnection::parse() {
  if (!parser_->got_some()) set_timer(server_->limits.request_seconds);
  if (!has_head_) {
    if (!advance() || !parser_->is_header_done()) return;
    take_head();
    if (phase_ != Phase::kReading) return;
    ask_for_room();
  }
  if (wants_room_) return;
  parser_->eager(true);
  if (!advance()) return;
  if (parser_->is_done()) return dispatch();
  if (!continued_ && expects_continue(parser_->get().base())) {
    continued_ = true;
    send_bytes("HTTP/1.1 100 Continue\r\n\r\n");
  }
}

// Gives the parser the input, up to the end of the head or, if it is eager, of the request. Returns false if the input
// is not a valid request.
bool HttpConnection::advance() {
  while (input_.size() > 0 && !parser_->is_done()) {
    if (!parser_->eager() && parser_->is_header_done()) break;
    error_code error;
    const std::size_t used = parser_->put(input_.data(), error);
    input_.consume(used);
    if (error == http::error::need_more || (!error && used == 0)) break;
    if (error) {
      refuse_request(error);
      return false;
    }
  }
  return true;
}

// Refuses whatever can be refused without the body, so that the body of such a request takes no memory.
void HttpConnection::take_head() {
  has_head_ = true;
  const HttpHead& head = parser_->get().base();
  if (const auto fault = check_framing(head)) return fail_request(fault->status, fault->message);
  http_1_0_ = head.version() < 11;
  head_only_ = parser_->get().method() == http::verb::head;
  request_ = plain_head(head);
  if (!server_->gate) return;
  phase_ = Phase::kReplying;
  keep_alive_ = parser_->is_done() && parser_->keep_alive() && !server_->closing;
  server_->gate(request_, shared_from_this());
  if (ended_ || phase_ == Phase::kClosed) return;
  phase_ = Phase::kReading;
}

void HttpConnection::ask_for_room() {
  const auto length = parser_->content_length();
  const std::size_t bytes = parser_->chunked() ? server_->limits.body_bytes : length ? *length : 0;
  if (bytes <= kReadBytes) return;  // the input buffer may hold so much in any case
  wants_room_ = true;
  // A connection that waits may have no pending read, so this reference keeps it alive.
  server_->body_room->ask(bytes,
                          [self = shared_from_this(), this, request = request_number_](const BodyRoom::Held& room) {
                            if (phase_ != Phase::kReading || request_number_ != request) return;
                            room_ = room;
                            wants_room_ = false;
                            set_timer(server_->limits.request_seconds);
                            // If this is called later, it is from the code that ends another connection's request. It
                            // must not run the rest inside that code, so it posts it.
                            asio::post(socket_.get_executor(), [self, this, request] {
                              if (phase_ != Phase::kReading || request_number_ != request) return;
                              guard([this] {
                                parse();
                                read();
                              });
                            });
                          });
}

void HttpConnection::refuse_request(const error_code& error) {
  if (error == http::error::header_limit)
    return fail_request(431,
                        fmt::format("expected headers of at most {} bytes, got more", server_->limits.header_bytes));
  if (error == http::error::body_limit)
    return fail_request(413, fmt::format("expected a body of at most {} bytes (--max-body), got a longer one",
                                         server_->limits.body_bytes));
  fail_request(400, "expected an HTTP request, got: " + error.message());
}

// Answers input that is not a valid request, or only a part of one. The connection is closed afterwards.
void HttpConnection::fail_request(int status, const std::string& message, const std::string& headers) {
  phase_ = Phase::kReplying;
  keep_alive_ = false;
  room_.reset();
  const ErrorForm form = error_form(plain_head(parser_->get().base()).path);
  send({.status = status, .body = error_body(status, message, "", form), .headers = headers});
}

void HttpConnection::dispatch() {
  phase_ = Phase::kReplying;
  timer_.cancel();
  keep_alive_ = parser_->keep_alive() && !server_->closing;
  request_.body = std::move(parser_->get().body());
  request_.room = std::exchange(room_, nullptr);
  server_->handler(std::move(request_), shared_from_this());
}

// --- replies ---

std::string HttpConnection::connection_header() const {
  return keep_alive_ ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
}

void HttpConnection::send(HttpResponse response) {
  const std::string headers = fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n{}{}{}", response.content_type,
                                          response.body.size(), response.headers, more_headers_, connection_header());
  send_bytes(head_of(response.status, headers));
  if (!head_only_) send_bytes(std::move(response.body));
  end_reply();
}

void HttpConnection::begin_stream(const std::string& content_type) {
  if (http_1_0_) keep_alive_ = false;  // closing the connection marks the end of the body
  send_bytes(
      head_of(200, fmt::format("Content-Type: {}\r\nCache-Control: no-cache\r\n{}{}{}", content_type,
                               http_1_0_ ? "" : "Transfer-Encoding: chunked\r\n", more_headers_, connection_header())));
}

void HttpConnection::write(std::string_view piece) {
  if (piece.empty()) return;  // an empty chunk would end the body
  const HttpLimits& limits = server_->limits;
  if (sender_->unread() > limits.unread_bytes && server_->unread > limits.total_unread_bytes) return leave();
  send_bytes(http_1_0_ ? std::string(piece) : fmt::format("{:x}\r\n{}\r\n", piece.size(), piece));
}

void HttpConnection::end() {
  if (!http_1_0_) send_bytes("0\r\n\r\n");
  end_reply();
}

void HttpConnection::end_reply() {
  ended_ = true;
  gone_ = nullptr;
  if (sender_->empty() && phase_ == Phase::kReplying) reply_sent();
}

void HttpConnection::send_bytes(std::string bytes) {
  if (phase_ == Phase::kClosed) return;
  sender_->queue(std::move(bytes));
  if (sender_->flushing()) return;
  if (phase_ == Phase::kReplying) set_timer(server_->limits.request_seconds);
  sender_->flush([self = shared_from_this(), this](error_code error) {
    if (phase_ == Phase::kClosed) return;
    if (error) return leave();
    if (phase_ != Phase::kReplying) return;
    timer_.cancel();
    if (ended_) reply_sent();
  });
}

void HttpConnection::reply_sent() {
  if (keep_alive_ && !server_->closing) {
    next_request();
    return guard([this] {
      if (input_.size() > 0) parse();
      read();
    });
  }
  phase_ = Phase::kLingering;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  input_.consume(input_.size());
  set_timer(kLingerSeconds);
  read();
}

// --- the end ---

// The client is gone, or is treated as gone. `gone_` is called later, because this may run inside a call of write().
void HttpConnection::leave() {
  close();
  if (gone_) asio::post(socket_.get_executor(), std::exchange(gone_, nullptr));
}

void HttpConnection::set_timer(int seconds) {
  timer_.expires_after(std::chrono::seconds(seconds));
  timer_.async_wait([weak = weak_from_this()](error_code error) {
    if (const auto self = weak.lock(); self && !error) self->timed_out();
  });
}

void HttpConnection::timed_out() {
  if (timer_.expiry() > std::chrono::steady_clock::now()) return;  // the timer was set again meanwhile
  if (phase_ == Phase::kReading && wants_room_)
    return fail_request(
        503,
        fmt::format(
            "too many large bodies are being read: expected room for this one within {} s, got none; send it again"
            " later",
            server_->limits.request_seconds),
        "Retry-After: 1\r\n");
  if (phase_ == Phase::kReading && parser_->got_some())
    return fail_request(408, fmt::format("expected the whole request within {} s, got only a part of it",
                                         server_->limits.request_seconds));
  if (client_reads()) return set_timer(server_->limits.request_seconds);
  leave();
}

// Whether the client is still reading a reply: it has not taken all of it, but some of it since the last call.
bool HttpConnection::client_reads() {
  return sender_->progressed() && (!sender_->empty() || sender_->in_transit() > 0);
}

}  // namespace foe
