#include "server/http/server.h"

#include <boost/asio/io_context.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "server/http/fixture.h"

namespace foe {
namespace {

namespace asio = boost::asio;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;
using Client = HttpTestClient;
using Server = HttpTestServer;

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
