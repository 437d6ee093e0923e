#include "server/http_server.h"

#include <future>
#include <iterator>
#include <new>
#include <poll.h>
#include <thread>
#include <unistd.h>

#include <arpa/inet.h>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/error.h"

namespace foe {
namespace {

namespace asio = boost::asio;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int kPatienceMs = 20000;  // how long a test waits for what must come: long, as it only matters on a failure

// A client that says exactly what the test wants.
class Client {
 public:
  explicit Client(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { leave(); }
  void leave() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

  void send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;  // the server has closed: read_all() says why
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // All that comes until `end` has come, or the server closes.
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
  // A body of so many bytes behind a head, read `piece` bytes at a time with pauses between them.
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

// Bytes of which no part looks like another.
std::string long_text(std::size_t bytes) {
  std::string text;
  text.reserve(bytes + 16);
  for (std::uint64_t i = 0; text.size() < bytes; ++i) fmt::format_to(std::back_inserter(text), "{:x},", i * i);
  text.resize(bytes);
  return text;
}

// A server with its thread. /echo answers with the body, /stream in pieces, /long with as many bytes as the body says,
// /wait keeps the reply for the test, /throw throws. Its gate refuses /gated.
class Server {
 public:
  explicit Server(const HttpLimits& limits = {}) {
    server_.emplace(
        io_, "127.0.0.1", 0, limits,
        [this](HttpRequest request, std::shared_ptr<HttpReply> reply) { handle(request, reply); },
        [this](HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
          ++heads_;
          if (request.path == "/gated") reply->send({.status = 401, .body = "no"});
        });
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Server() {
    on_thread([this] {
      kept_.clear();
      server_.reset();
    });
    work_.reset();
    thread_.join();
  }

  int port() const { return server_->port(); }
  // Requests whose head has come.
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
  // Runs it where the server runs.
  void on_thread(const std::function<void()>& action) {
    std::promise<void> done;
    asio::post(io_, [&] {
      action();
      done.set_value();
    });
    done.get_future().wait();
  }
  // The reply to the n-th request for /wait.
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

  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::optional<HttpServer> server_;
  std::thread thread_;
  int heads_ = 0;
  std::vector<std::shared_ptr<HttpReply>> kept_;
  std::promise<void> gone_;
};

// Waits for what must come.
void wait_until(const std::function<bool()>& condition) {
  for (int i = 0; !condition(); ++i) {
    if (i == kPatienceMs) throw std::runtime_error("waited in vain");
    usleep(1000);
  }
}

std::string post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n{}", path, headers, body.size(), body);
}

TEST(HttpServer, AnswersSeveralRequestsOnOneConnection) {
  Server server;
  const Client client(server.port());
  for (const std::string body : {"a", "", "longer"}) {
    client.send(post("/echo?query=1", body));
    EXPECT_THAT(client.read_until("POST:" + body), AllOf(StartsWith("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),
                                                         HasSubstr("Connection: keep-alive\r\n")));
  }
  client.send(post("/echo", "last", "Connection: close\r\n"));
  EXPECT_THAT(client.read_all(), AllOf(HasSubstr("Connection: close\r\n"), EndsWith("\r\n\r\nPOST:last")));
}

TEST(HttpServer, ReadsRequestsByteByByteAndBackToBack) {
  Server server;
  const Client slow(server.port());
  for (const char c : post("/echo", "slow", "Connection: close\r\n")) slow.send({&c, 1});
  EXPECT_THAT(slow.read_all(), EndsWith("POST:slow"));

  const Client fast(server.port());
  fast.send(post("/echo", "1") + post("/stream", "") + post("/echo", "3", "Connection: close\r\n"));
  EXPECT_THAT(fast.read_all(),
              AllOf(HasSubstr("POST:1"), HasSubstr("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), EndsWith("POST:3")));
}

TEST(HttpServer, ReadsChunkedBodies) {
  Server server;
  const Client client(server.port());
  client.send(
      "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_THAT(client.read_all(), EndsWith("POST:abcde"));
}

TEST(HttpServer, AsksForTheBodyOfAClientThatWaits) {
  Server server;
  const Client client(server.port());
  client.send("POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_THAT(client.read_all(), AllOf(StartsWith("HTTP/1.1 200 OK"), EndsWith("POST:abc")));
}

TEST(HttpServer, AsksForTheBodyWhereTheClientExpectsIt) {
  Server server;
  const Client upper(server.port());
  upper.send("POST /echo HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(upper.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  const Client old(server.port());  // HTTP/1.0 has no such thing
  old.send("POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  wait_until([&] { return server.heads() == 2; });
  old.send("abc");
  EXPECT_THAT(old.read_all(), AllOf(StartsWith("HTTP/1.1 200 OK"), EndsWith("POST:abc")));
}

TEST(HttpServer, RefusesBeforeTheBodyComes) {
  Server server;
  const Client client(server.port());
  client.send("POST /gated HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n");
  EXPECT_THAT(client.read_all(),
              AllOf(StartsWith("HTTP/1.1 401 "), HasSubstr("Connection: close\r\n"), EndsWith("no")));
  const Client chunked(server.port());
  chunked.send("POST /gated HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + post("/echo", ""));
  EXPECT_THAT(chunked.read_all(), EndsWith("no")) << "the body is no request";
  const Client empty(server.port());  // nothing is left unread
  empty.send(post("/gated", "") + post("/echo", "next", "Connection: close\r\n"));
  EXPECT_THAT(empty.read_all(), AllOf(StartsWith("HTTP/1.1 401 "), EndsWith("POST:next")));
}

TEST(HttpServer, ReadsLargeBodiesAsThereIsRoom) {
  Server server({.total_body_bytes = 100 << 10});
  const std::string body = long_text(60 << 10), head = post("/echo", body, "Connection: close\r\n");
  const Client first(server.port()), second(server.port()), third(server.port());
  Client gone(server.port());
  first.send(head.substr(0, head.size() - 1));
  wait_until([&] { return server.heads() == 1; });
  for (const Client& client : {std::cref(second), std::cref<Client>(gone), std::cref(third)}) client.send(head);
  const Client small(server.port());  // needs no room
  small.send(post("/echo", "small", "Connection: close\r\n"));
  EXPECT_THAT(small.read_all(), EndsWith("POST:small"));
  wait_until([&] { return server.heads() == 5; });
  EXPECT_EQ(server.replying(), 0u);
  gone.leave();
  first.send(head.substr(head.size() - 1));
  for (const Client* client : {&first, &second, &third}) EXPECT_TRUE(client->read_all().ends_with("POST:" + body));
}

TEST(HttpServer, EndsARequestThatThereIsNoMemoryForAndNoOther) {
  Server server;
  const Client one(server.port()), other(server.port());
  one.send(post("/throw", "x"));
  EXPECT_EQ(one.read_all(), "");
  other.send(post("/echo", "other", "Connection: close\r\n"));
  EXPECT_THAT(other.read_all(), EndsWith("POST:other"));
}

TEST(HttpServer, ReadsTargetsInAbsoluteForm) {
  Server server;
  for (const std::string target : {"http://x/echo", "HTTP://x:80/echo?a=/b", "https://[::1]:1/echo"}) {
    const Client client(server.port());
    client.send(fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\na", target));
    EXPECT_THAT(client.read_all(), EndsWith("POST:a")) << target;
  }
}

// What follows such a request may be its body, so it must not be read as the next request.
TEST(HttpServer, RefusesTransferCodingsThatItDoesNotRead) {
  Server server;
  const std::pair<std::string, int> codings[] = {{"Transfer-Encoding: gzip\r\n", 400},
                                                 {"Transfer-Encoding: identity\r\n", 400},
                                                 {"Transfer-Encoding: \r\n", 400},
                                                 {"Transfer-Encoding: xchunked\r\n", 400},
                                                 {"Transfer-Encoding: xchunked\r\nContent-Length: 10\r\n", 400},
                                                 {"Transfer-Encoding: \"chunked\"\r\n", 400},
                                                 {"Transfer-Encoding: chunked;q=1\r\n", 400},
                                                 {"Transfer-Encoding: chunked, gzip\r\n", 400},
                                                 {"Transfer-Encoding: chunked, chunked\r\n", 400},
                                                 {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400},
                                                 {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
                                                 {"Transfer-Encoding: chunked\r\nContent-Length: 10\r\n", 400},
                                                 {"Content-Length: 10\r\nTransfer-Encoding: gzip\r\n", 400},
                                                 {"Transfer-Encoding: gzip, chunked\r\n", 501},
                                                 {"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501}};
  for (const auto& [headers, status] : codings) {
    const Client client(server.port());
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\n" + headers + "\r\nGET /echo HTTP/1.1\r\nHost: next\r\n\r\n");
    const std::string got = client.read_all();
    EXPECT_THAT(got, AllOf(StartsWith(fmt::format("HTTP/1.1 {} ", status)), HasSubstr("Connection: close\r\n")))
        << headers;
    EXPECT_EQ(got.rfind("HTTP/1.1 "), 0u) << headers;
  }
  const Client old(server.port());
  old.send("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
  EXPECT_THAT(old.read_all(), StartsWith("HTTP/1.1 400 "));
  const Client fine(server.port());
  fine.send("POST /echo HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\n\r\n");
  EXPECT_THAT(fine.read_all(), EndsWith("POST:a"));
}

TEST(HttpServer, StreamsToOldClientsWithoutChunks) {
  Server server;
  const Client client(server.port());
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_THAT(client.read_all(), AllOf(Not(HasSubstr("Transfer-Encoding")), EndsWith("\r\n\r\nonetwo")));
}

TEST(HttpServer, SendsNoBodyToHead) {
  Server server;
  const Client client(server.port());
  client.send("HEAD /echo HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.read_all(), AllOf(HasSubstr("Content-Length: 5\r\n"), EndsWith("\r\n\r\n")));
}

TEST(HttpServer, RefusesWhatIsNoHttp) {
  Server server;
  for (const std::string bytes :
       {"nonsense\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nA\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n", "POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"}) {
    const Client client(server.port());
    client.send(bytes);
    EXPECT_THAT(client.read_all(),
                AllOf(StartsWith("HTTP/1.1 400 Bad Request\r\n"), HasSubstr("\"type\":\"BadRequestError\"")))
        << bytes;
  }
}

TEST(HttpServer, RefusesLongHeadersAndBodies) {
  Server server({.header_bytes = 1000, .body_bytes = 100});
  const Client header(server.port());
  header.send("GET /echo HTTP/1.1\r\nA: " + std::string(2000, 'a'));
  EXPECT_THAT(header.read_all(), AllOf(StartsWith("HTTP/1.1 431 "), HasSubstr("headers of at most 1000 bytes")));

  const Client announced(server.port());
  announced.send("POST /echo HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n");
  EXPECT_THAT(announced.read_all(), AllOf(StartsWith("HTTP/1.1 413 "), HasSubstr("a body of at most 100 bytes")));

  const Client chunked(server.port());
  chunked.send("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nc8\r\n" + std::string(200, 'a') +
               "\r\n0\r\n\r\n");
  EXPECT_THAT(chunked.read_all(), StartsWith("HTTP/1.1 413 "));

  const Client fits(server.port());
  fits.send(post("/echo", std::string(100, 'a'), "Connection: close\r\n"));
  EXPECT_THAT(fits.read_all(), EndsWith("POST:" + std::string(100, 'a')));
}

TEST(HttpServer, HearsThatAClientLeavesBeforeTheReply) {
  Server server;
  std::future<void> gone = server.gone();
  Client client(server.port());
  client.send(post("/wait", ""));
  const auto reply = server.kept(0);
  EXPECT_EQ(server.replying(), 1u);
  client.leave();
  EXPECT_EQ(gone.wait_for(std::chrono::milliseconds(kPatienceMs)), std::future_status::ready);
  server.on_thread([&] { reply->send({}); });  // nobody is there, and nothing happens
  EXPECT_EQ(server.replying(), 0u);
}

TEST(HttpServer, HearsThatAClientLeavesTheStream) {
  Server server;
  std::future<void> gone = server.gone();
  Client client(server.port());
  client.send(post("/wait", ""));
  const auto reply = server.kept(0);
  server.on_thread([&] {
    reply->begin_stream("text/event-stream");
    reply->write("begin");
  });
  client.read_until("begin");
  client.leave();
  EXPECT_EQ(gone.wait_for(std::chrono::milliseconds(kPatienceMs)), std::future_status::ready);
}

TEST(HttpServer, SendsLongRepliesWhole) {
  Server server;
  for (const std::size_t bytes : {std::size_t{8} << 20, std::size_t{64} << 20}) {
    const Client client(server.port());
    client.send(post("/long", std::to_string(bytes)));
    const std::string got = client.read_body(bytes);
    EXPECT_EQ(got.size(), bytes);
    EXPECT_TRUE(got == long_text(bytes));
  }
  wait_until([&] { return server.unread() == 0; });
}

// The reply takes longer than a client may pause, and others are answered meanwhile.
TEST(HttpServer, SendsLongRepliesToSlowClients) {
  Server server({.unread_bytes = 1 << 20, .total_unread_bytes = 2 << 20, .request_seconds = 1});
  constexpr std::size_t kBytes = 16 << 20;
  std::vector<std::future<std::string>> slow;
  for (int i = 0; i < 3; ++i)
    slow.push_back(std::async(std::launch::async, [&] {
      const Client client(server.port());
      client.send(post("/long", std::to_string(kBytes)));
      return client.read_body(kBytes, 128 << 10, 20000);
    }));
  const Client other(server.port());
  other.send(post("/echo", "other", "Connection: close\r\n"));
  EXPECT_THAT(other.read_all(), EndsWith("POST:other"));
  for (auto& reply : slow) EXPECT_TRUE(reply.get() == long_text(kBytes));
  wait_until([&] { return server.unread() == 0; });
}

TEST(HttpServer, StreamsPiecesOfAnyLength) {
  Server server({.unread_bytes = 1 << 20});
  const std::string piece = long_text(8 << 20);
  const Client client(server.port());
  client.send(post("/wait", "", "Connection: close\r\n"));
  const auto reply = server.kept(0);
  server.on_thread([&] {
    reply->begin_stream("text/plain");
    for (int i = 0; i < 2; ++i) reply->write(piece);
    reply->end();
  });
  const std::string chunk = "800000\r\n" + piece + "\r\n";
  const std::string body = chunk + chunk + "0\r\n\r\n";
  EXPECT_TRUE(client.read_body(body.size()) == body);
}

TEST(HttpServer, GivesUpALongReplyThatIsNotRead) {
  Server server({.request_seconds = 1});
  const Client client(server.port());
  client.send(post("/long", std::to_string(64 << 20)));
  wait_until([&] { return server.replying() == 1; });
  wait_until([&] { return server.replying() == 0; });
  EXPECT_EQ(server.unread(), 0u);
}

TEST(HttpServer, DropsAClientThatDoesNotRead) {
  Server server({.unread_bytes = 1 << 20, .total_unread_bytes = 16 << 20});
  std::future<void> gone = server.gone();
  const Client client(server.port());
  client.send(post("/wait", ""));
  const auto reply = server.kept(0);
  // Much more than the system's own buffers take.
  server.on_thread([&] {
    reply->begin_stream("text/event-stream");
    for (int i = 0; i < 64; ++i) reply->write(std::string(1 << 20, 'x'));
  });
  EXPECT_EQ(gone.wait_for(std::chrono::milliseconds(kPatienceMs)), std::future_status::ready);
}

TEST(HttpServer, EndsSlowRequests) {
  Server server({.request_seconds = 1, .idle_seconds = 1});
  const Client client(server.port());
  client.send("POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_THAT(client.read_all(), AllOf(StartsWith("HTTP/1.1 408 "), HasSubstr("the whole request within 1 s")));
  const Client idle(server.port());
  EXPECT_EQ(idle.read_all(), "");
}

TEST(HttpServer, LimitsConnections) {
  Server server({.connections = 1});
  const Client first(server.port());
  first.send(post("/wait", ""));
  const auto reply = server.kept(0);
  const Client second(server.port());
  EXPECT_THAT(second.read_all(),
              AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Retry-After: 1\r\n"), HasSubstr("too many connections")));
  server.on_thread([&] { reply->send({.body = "{}"}); });
  first.read_until("{}");
}

TEST(HttpServer, FinishesRepliesAfterClose) {
  Server server;
  const Client busy(server.port()), idle(server.port());
  busy.send(post("/wait", ""));
  const auto reply = server.kept(0);
  server.close();
  EXPECT_EQ(idle.read_all(), "");
  server.on_thread([&] { reply->send({.body = "{}"}); });
  EXPECT_THAT(busy.read_all(), EndsWith("{}"));
}

TEST(HttpServer, RefusesAddressesThatCannotBeHad) {
  asio::io_context io;
  const HttpHandler nothing = [](HttpRequest, std::shared_ptr<HttpReply>) {};
  EXPECT_THAT([&] { HttpServer(io, "no address", 0, {}, nothing); },
              testing::ThrowsMessage<Error>("--host: expected an IP address of this machine, got 'no address'"));
  const HttpServer first(io, "127.0.0.1", 0, {}, nothing);
  EXPECT_THAT([&] { HttpServer(io, "127.0.0.1", first.port(), {}, nothing); },
              testing::ThrowsMessage<Error>(HasSubstr("Address already in use")));
}

}  // namespace
}  // namespace foe
