// The connection of one client of an HttpServer. Private to this folder's .cc files.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "server/http/body_room.h"
#include "server/http/server.h"

namespace foe {

class HttpConnection;
class HttpSender;

struct HttpServer::State {
  State(boost::asio::io_context& io, const HttpLimits& http_limits, HttpHandler http_handler, HttpGate http_gate);

  HttpLimits limits;
  HttpHandler handler;
  HttpGate gate;
  boost::asio::ip::tcp::acceptor acceptor;
  boost::asio::steady_timer retry;
  bool closing = false;
  std::set<HttpConnection*> connections;
  std::shared_ptr<BodyRoom> body_room;
  std::size_t unread = 0;  // bytes of all replies that are in memory
};

// Reads all the time, also while it replies, so that it notices when the client leaves. Its pending read keeps it
// alive.
class HttpConnection : public HttpReply, public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(boost::asio::ip::tcp::socket socket, std::shared_ptr<HttpServer::State> server);
  ~HttpConnection() override;

  void start();
  void refuse();
  bool replying() const { return phase_ == Phase::kReplying; }
  bool waiting() const { return phase_ == Phase::kReading; }
  void close();

  void add_headers(std::string_view lines) override { more_headers_ += lines; }
  void send(HttpResponse response) override;
  void begin_stream(const std::string& content_type) override;
  void write(std::string_view piece) override;
  void end() override;
  void when_gone(std::function<void()> action) override { gone_ = std::move(action); }

 private:
  enum class Phase {
    kReading,    // reading a request, or waiting for one
    kReplying,   // from the last byte of the request to the last of the reply
    kLingering,  // the reply is sent, and input is thrown away: closing at once could discard the reply
    kClosed,
  };
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void next_request();
  void read();
  void guard(const std::function<void()>& action);
  void parse();
  bool advance();
  void take_head();
  void ask_for_room();
  void refuse_request(const boost::system::error_code& error);
  void fail_request(int status, const std::string& message, const std::string& headers = "");
  void dispatch();
  std::string connection_header() const;
  void end_reply();
  void send_bytes(std::string bytes);
  void reply_sent();
  void leave();
  void set_timer(int seconds);
  void timed_out();
  bool client_reads();

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  std::shared_ptr<HttpServer::State> server_;
  Phase phase_ = Phase::kReading;
  bool reading_ = false;
  boost::beast::flat_buffer input_;  // input that has not been parsed yet
  std::optional<Parser> parser_;
  HttpRequest request_;      // the head of the request, once it is complete
  bool has_head_ = false;    // whether request_ has the head
  bool wants_room_ = false;  // whether it waits for room for its body
  BodyRoom::Held room_;      // the room for its body
  std::size_t request_number_ = 0;
  bool continued_ = false;  // "100 Continue" was sent
  bool http_1_0_ = false, keep_alive_ = false, head_only_ = false;
  std::string more_headers_;  // further header lines of the reply
  std::unique_ptr<HttpSender> sender_;
  bool ended_ = false;  // whether all of the reply has been given to the sender
  std::function<void()> gone_;
};

}  // namespace foe
