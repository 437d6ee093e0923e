#include "server/link.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

template <typename Message>
std::string framed(const Message& message) {
  std::string bytes;
  append_message(bytes, message);
  return bytes;
}

std::string payload_of(const std::string& bytes) {
  return bytes.substr(sizeof(std::uint32_t));
}

Request sample_request() {
  Request request;
  request.id = 1234567890123;
  request.prompt = {1, 2, 3};
  request.output = {-4};
  request.stop_ids = {5, 6};
  request.max_tokens = 7;
  request.sampling = {.temperature = 0.5f, .top_p = 0.9f, .top_k = 8, .min_p = 0.1f, .seed = ~std::uint64_t{0}};
  return request;
}

// One of each kind, with every kind of field in it.
std::vector<ToRanks> to_ranks() {
  return {Submit{sample_request()}, Abort{42}, Stop{}};
}
std::vector<FromRanks> from_ranks() {
  return {Ready{kLinkVersion, 2, 3, 4096, "foe"},
          Tokens{{{7, 8, {}}, {9, 10, FinishReason::kStop}, {11, 12, FinishReason::kLength}}}, Refused{5, "why"},
          Alive{1500}};
}

TEST(Link, CarriesRequests) {
  const Request sent = sample_request();
  const Request got = std::get<Submit>(parse_to_ranks(payload_of(framed(ToRanks(Submit{sent}))))).request;
  EXPECT_EQ(got.id, sent.id);
  EXPECT_EQ(got.prompt, sent.prompt);
  EXPECT_EQ(got.output, sent.output);
  EXPECT_EQ(got.stop_ids, sent.stop_ids);
  EXPECT_EQ(got.max_tokens, sent.max_tokens);
  EXPECT_EQ(got.sampling.temperature, sent.sampling.temperature);
  EXPECT_EQ(got.sampling.top_p, sent.sampling.top_p);
  EXPECT_EQ(got.sampling.top_k, sent.sampling.top_k);
  EXPECT_EQ(got.sampling.min_p, sent.sampling.min_p);
  EXPECT_EQ(got.sampling.seed, sent.sampling.seed);
}

TEST(Link, CarriesTheOtherMessages) {
  EXPECT_EQ(std::get<Abort>(parse_to_ranks(payload_of(framed(ToRanks(Abort{42}))))).id, 42);
  EXPECT_TRUE(std::holds_alternative<Stop>(parse_to_ranks(payload_of(framed(ToRanks(Stop{}))))));

  const auto messages = from_ranks();
  const auto ready = std::get<Ready>(parse_from_ranks(payload_of(framed(messages[0]))));
  EXPECT_EQ(ready.ranks, 2);
  EXPECT_EQ(ready.threads, 3);
  EXPECT_EQ(ready.kv_tokens, 4096);
  EXPECT_EQ(ready.plan, "foe");
  const auto tokens = std::get<Tokens>(parse_from_ranks(payload_of(framed(messages[1]))));
  ASSERT_EQ(tokens.events.size(), 3u);
  EXPECT_EQ(tokens.events[0].id, 7);
  EXPECT_EQ(tokens.events[0].token, 8);
  EXPECT_EQ(tokens.events[0].finish, std::nullopt);
  EXPECT_EQ(tokens.events[1].finish, FinishReason::kStop);
  EXPECT_EQ(tokens.events[2].finish, FinishReason::kLength);
  const auto refused = std::get<Refused>(parse_from_ranks(payload_of(framed(messages[2]))));
  EXPECT_EQ(refused.id, 5);
  EXPECT_EQ(refused.reason, "why");
  EXPECT_EQ(std::get<Alive>(parse_from_ranks(payload_of(framed(messages[3])))).silence_ms, 1500);
}

TEST(Link, RefusesEveryTruncationAndAnythingBehind) {
  for (const ToRanks& message : to_ranks()) {
    const std::string payload = payload_of(framed(message));
    for (std::size_t n = 0; n < payload.size(); ++n)
      EXPECT_THROW(parse_to_ranks(payload.substr(0, n)), Error) << message.index() << " cut to " << n;
    EXPECT_THAT([&] { parse_to_ranks(payload + "x"); },
                ThrowsMessage<Error>("link: expected the end of the message, got 1 bytes more"));
  }
  for (const FromRanks& message : from_ranks()) {
    const std::string payload = payload_of(framed(message));
    for (std::size_t n = 0; n < payload.size(); ++n)
      EXPECT_THROW(parse_from_ranks(payload.substr(0, n)), Error) << message.index() << " cut to " << n;
    EXPECT_THAT([&] { parse_from_ranks(payload + "x"); }, ThrowsMessage<Error>(HasSubstr("got 1 bytes more")));
  }
}

TEST(Link, RefusesWhatIsNoMessage) {
  EXPECT_THAT([] { parse_to_ranks(""); }, ThrowsMessage<Error>("link: expected 1 bytes more in a message, got 0"));
  EXPECT_THAT([] { parse_to_ranks("\x03"); }, ThrowsMessage<Error>("link: expected a kind of message below 3, got 3"));
  EXPECT_THAT([] { parse_from_ranks("\xff"); },
              ThrowsMessage<Error>("link: expected a kind of message below 4, got 255"));

  std::string ready = payload_of(framed(from_ranks()[0]));
  ready[1] = 77;
  EXPECT_THAT([&] { parse_from_ranks(ready); },
              ThrowsMessage<Error>("link: expected version 1 of the protocol, got 77"));

  // A count of four thousand million, in a message of a few bytes.
  std::string tokens = payload_of(framed(FromRanks(Tokens{})));
  std::memset(tokens.data() + 1, 0xff, 4);
  EXPECT_THAT([&] { parse_from_ranks(tokens); },
              ThrowsMessage<Error>("link: expected at most 0 elements of 13 bytes, got 4294967295"));

  std::string finish = payload_of(framed(FromRanks(Tokens{{{1, 2, {}}}})));
  finish.back() = 3;
  EXPECT_THAT([&] { parse_from_ranks(finish); },
              ThrowsMessage<Error>("link: expected a finish reason of at most 2, got 3"));
  EXPECT_THAT([] { parse_from_ranks(payload_of(framed(FromRanks(Alive{0})))); },
              ThrowsMessage<Error>("link: expected a positive number of milliseconds, got 0"));
}

TEST(MessageBuffer, FindsMessagesHoweverTheirBytesArrive) {
  std::string bytes;
  for (int i = 0; i < 5; ++i) append_message(bytes, ToRanks(Abort{i}));
  for (std::size_t piece = 1; piece <= bytes.size(); ++piece) {
    MessageBuffer buffer;
    std::int64_t expected = 0;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      buffer.append(std::string_view(bytes).substr(at, piece));
      while (const auto payload = buffer.next()) EXPECT_EQ(std::get<Abort>(parse_to_ranks(*payload)).id, expected++);
    }
    EXPECT_EQ(expected, 5) << "in pieces of " << piece;
  }
}

TEST(MessageBuffer, RefusesALengthPastTheLimit) {
  const std::uint32_t length = kMaxLinkMessage + 1;
  MessageBuffer buffer;
  buffer.append({reinterpret_cast<const char*>(&length), sizeof length});
  EXPECT_THAT([&] { buffer.next(); },
              ThrowsMessage<Error>("link: expected a message of at most 67108864 bytes, got 67108865"));
}

}  // namespace
}  // namespace foe
