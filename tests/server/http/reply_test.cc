#include <future>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/http/fixture.h"
#include "server/http/server.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using Client = HttpTestClient;
using Server = HttpTestServer;

TEST(HttpReply, StreamsToOldClientsWithoutChunks) {
  Server server;
  const Client client(server.port());
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_THAT(client.read_all(), AllOf(Not(HasSubstr("Transfer-Encoding")), EndsWith("\r\n\r\nonetwo")));
}

TEST(HttpReply, SendsNoBodyToHead) {
  Server server;
  const Client client(server.port());
  client.send("HEAD /echo HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.read_all(), AllOf(HasSubstr("Content-Length: 5\r\n"), EndsWith("\r\n\r\n")));
}

TEST(HttpReply, HearsThatAClientLeavesBeforeTheReply) {
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

TEST(HttpReply, HearsThatAClientLeavesTheStream) {
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

TEST(HttpReply, SendsLongRepliesWhole) {
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
TEST(HttpReply, SendsLongRepliesToSlowClients) {
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

TEST(HttpReply, StreamsPiecesOfAnyLength) {
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

TEST(HttpReply, GivesUpALongReplyThatIsNotRead) {
  Server server({.request_seconds = 1});
  const Client client(server.port());
  client.send(post("/long", std::to_string(64 << 20)));
  wait_until([&] { return server.replying() == 1; });
  wait_until([&] { return server.replying() == 0; });
  EXPECT_EQ(server.unread(), 0u);
}

TEST(HttpReply, DropsAClientThatDoesNotRead) {
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

TEST(HttpReply, FinishesRepliesAfterClose) {
  Server server;
  const Client busy(server.port()), idle(server.port());
  busy.send(post("/wait", ""));
  const auto reply = server.kept(0);
  server.close();
  EXPECT_EQ(idle.read_all(), "");
  server.on_thread([&] { reply->send({.body = "{}"}); });
  EXPECT_THAT(busy.read_all(), EndsWith("{}"));
}

}  // namespace
}  // namespace foe
