#include "load/http_client.h"

#include <array>
#include <chrono>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <fmt/core.h>

#include "base/clock.h"
#include "base/error.h"

namespace foe {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

class Exchange;
constexpr std::size_t kHeaderBytes = 64 << 10, kReadBytes = 16 << 10, kRetryAfterBytes = 64;

}  // namespace

struct HttpClient::State {
  State(asio::io_context& context, const HttpTarget& http_target, double timeout)
      : io(context), target(http_target), timeout_s(timeout) {}

  asio::io_context& io;
  HttpTarget target;
  double timeout_s;
  tcp::resolver::results_type endpoints;
  std::vector<beast::tcp_stream> idle;
  std::set<Exchange*> exchanges;

  // Returns a kept connection that is still open, if there is one.
  std::optional<beast::tcp_stream> take_idle() {
    while (!idle.empty()) {
      beast::tcp_stream stream = std::move(idle.back());
      idle.pop_back();
      error_code error;
      char byte;
      stream.socket().non_blocking(true, error);
      if (!error) stream.socket().receive(asio::buffer(&byte, 1), tcp::socket::message_peek, error);
      if (error == asio::error::would_block) return stream;  // it is neither closed nor has unexpected bytes
    }
    return {};
  }
};

namespace {

// One call. Its pending reads and writes keep it alive.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::shared_ptr<HttpClient::State> state, HttpCall call, HttpClient::OnBody on_body,
           HttpClient::OnEnd on_end)
      : state_(std::move(state)), on_body_(std::move(on_body)), on_end_(std::move(on_end)) {
    state_->exchanges.insert(this);
    const bool ip_v6 = state_->target.host.find(':') != std::string::npos;
    request_ =
        fmt::format("{} {}{} HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}\r\n",
                    call.method, state_->target.path, call.path,
                    ip_v6 ? fmt::format("[{}]", state_->target.host) : state_->target.host, state_->target.port,
                    call.body.size(), call.headers);
    request_ += call.body;
  }
  ~Exchange() { state_->exchanges.erase(this); }

  void start() {
    auto idle = state_->take_idle();
    if (!idle) return connect();
    reused_ = true;
    stream_.emplace(std::move(*idle));
    set_deadline();
    write();
  }

  // Makes its pending operations end soon, with an error.
  void cancel() {
    cancelled_ = true;
    error_code ignored;
    if (stream_) stream_->socket().close(ignored);
  }
  void forget_callbacks() { on_body_ = nullptr, on_end_ = nullptr; }

 private:
  void connect() {
    reused_ = false;
    stream_.emplace(state_->io);
    set_deadline();
    stream_->async_connect(state_->endpoints, [self = shared_from_this()](error_code error, const tcp::endpoint&) {
      if (error) return self->end("cannot connect", error);
      error_code ignored;
      self->stream_->socket().set_option(tcp::no_delay(true), ignored);
      self->write();
    });
  }

  void set_deadline() {
    const std::chrono::duration<double> time(state_->timeout_s);
    deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
    stream_->expires_at(deadline_);
  }

  void write() {
    asio::async_write(*stream_, asio::buffer(request_), [self = shared_from_this()](error_code error, std::size_t) {
      // A server may refuse a request without reading its body, and close the connection. Then the reply says why.
      if (error && error != asio::error::broken_pipe && error != asio::error::connection_reset)
        return self->end("cannot send the request", error);
      self->read_header();
    });
  }

  void read_header() {
    parser_.emplace();
    parser_->eager(true);
    parser_->header_limit(kHeaderBytes);
    parser_->body_limit(std::numeric_limits<std::uint64_t>::max());  // the body is not kept here
    http::async_read_header(*stream_, input_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
      if (error) return self->closed_before(error) ? self->connect() : self->end("no reply", error);
      const auto& reply = self->parser_->get();
      self->result_.status = static_cast<int>(reply.result_int());
      self->result_.retry_after = std::string(reply[http::field::retry_after].substr(0, kRetryAfterBytes));
      self->read_body();
    });
  }

  // Returns whether the server had closed a connection that was kept, before it can have seen the request.
  bool closed_before(error_code error) const {
    const bool closed = error == http::error::end_of_stream || error == asio::error::connection_reset ||
                        error == asio::error::broken_pipe;
    return reused_ && closed && !cancelled_ && !parser_->got_some();
  }

  void read_body() {
    if (parser_->is_done()) return complete();
    parser_->get().body() = {.data = piece_.data(), .size = piece_.size(), .more = true};
    http::async_read_some(*stream_, input_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
      const std::size_t bytes = self->piece_.size() - self->parser_->get().body().size;
      if (self->cancelled_) return self->end("interrupted", {});
      if (bytes > 0 && self->on_body_) {
        const std::string refusal = self->on_body_(self->result_.status, {self->piece_.data(), bytes});
        if (!refusal.empty()) return self->end(refusal, {});
      }
      if (error && error != http::error::need_buffer) return self->end("the reply broke off", error);
      // The stream's own timer ends operations that wait. If there is always something to read, none waits, so the
      // deadline is checked here.
      if (Clock::now() >= self->deadline_) return self->end("the reply did not end", beast::error::timeout);
      self->read_body();
    });
  }

  void complete() {
    if (parser_->get().keep_alive() && !cancelled_ && input_.size() == 0) {
      stream_->expires_never();
      state_->idle.push_back(std::move(*stream_));
    }
    report();
  }

  void end(const std::string& what, error_code error) {
    if (cancelled_)
      result_.error = "interrupted";
    else if (error == beast::error::timeout)
      result_.error = fmt::format("{} within {} s", what, state_->timeout_s);
    else
      result_.error = error ? fmt::format("{}: {}", what, error.message()) : what;
    error_code ignored;
    stream_->socket().close(ignored);
    report();
  }

  void report() {
    if (on_end_) std::exchange(on_end_, nullptr)(std::move(result_));
  }

  std::shared_ptr<HttpClient::State> state_;
  HttpClient::OnBody on_body_;
  HttpClient::OnEnd on_end_;
  std::string request_;
  std::optional<beast::tcp_stream> stream_;
  beast::flat_buffer input_{kHeaderBytes + kReadBytes};
  std::optional<http::response_parser<http::buffer_body>> parser_;
  std::array<char, kReadBytes> piece_;
  HttpResult result_;
  Clock::time_point deadline_;
  bool reused_ = false;  // whether the connection has had another call before
  bool cancelled_ = false;
};

}  // namespace

HttpTarget parse_base_url(const std::string& url) {
  const auto refuse = [&]() { fail("expected http://HOST[:PORT][/PATH], got '{}'", url); };
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) refuse();
  if (url.find_first_of(" \r\n\t?#@") != url.npos) refuse();
  std::string authority = url.substr(kScheme.size());
  HttpTarget target;
  if (const auto slash = authority.find('/'); slash != authority.npos) {
    target.path = authority.substr(slash);
    authority.resize(slash);
    while (target.path.ends_with('/')) target.path.pop_back();
  }
  target.port = "80";
  if (const auto colon = authority.rfind(':'); colon != authority.npos && !authority.ends_with(']')) {
    target.port = authority.substr(colon + 1);
    authority.resize(colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']')) authority = authority.substr(1, authority.size() - 2);
  target.host = authority;
  if (target.host.empty() || target.port.empty() || target.port.size() > 5 ||
      target.port.find_first_not_of("0123456789") != std::string::npos || std::stoi(target.port) > 65535)
    refuse();
  return target;
}

HttpClient::HttpClient(asio::io_context& io, const HttpTarget& target, double timeout_s)
    : state_(std::make_shared<State>(io, target, timeout_s)) {
  error_code error;
  state_->endpoints = tcp::resolver(io).resolve(target.host, target.port, error);
  if (error)
    fail("--host, --base-url: expected a host name or address that can be found, got '{}': {}", target.host,
         error.message());
}

HttpClient::~HttpClient() {
  for (Exchange* exchange : state_->exchanges) exchange->forget_callbacks();
  cancel();
}

void HttpClient::send(HttpCall call, OnBody on_body, OnEnd on_end) {
  std::make_shared<Exchange>(state_, std::move(call), std::move(on_body), std::move(on_end))->start();
}

void HttpClient::cancel() {
  for (Exchange* exchange : state_->exchanges) exchange->cancel();
  state_->idle.clear();
}

std::string http_get(const HttpTarget& target, const std::string& path, const std::string& headers, double timeout_s) {
  constexpr std::size_t kMaxBytes = 1 << 20;
  asio::io_context io;
  HttpClient client(io, target, timeout_s);
  std::string body;
  HttpResult result;
  client.send(
      {"GET", path, headers},
      [&](int, std::string_view piece) {
        body += piece;
        return body.size() > kMaxBytes ? fmt::format("expected at most {} bytes", kMaxBytes) : "";
      },
      [&](HttpResult ended) { result = std::move(ended); });
  io.run();
  const std::string url = fmt::format("http://{}:{}{}{}", target.host, target.port, target.path, path);
  if (!result.error.empty()) fail("{}: {}", url, result.error);
  if (result.status != 200) fail("{}: expected status 200, got {}", url, result.status);
  return body;
}

}  // namespace foe
