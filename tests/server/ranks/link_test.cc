#include "server/ranks/link.h"

#include <cstring>
#include <limits>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"

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
  request.priority = -3;
  request.sampling = {.temperature = 0.5f,
                      .top_p = 0.9f,
                      .top_k = 8,
                      .min_p = 0.1f,
                      .presence_penalty = -1.5f,
                      .frequency_penalty = 1.25f,
                      .repetition_penalty = 1.1f,
                      .logit_bias = {{9, -100.0f}, {10, 2.5f}},
                      .allowed_tokens = {1, 2},
                      .bad_words = {{3}, {4, 5}},
                      .min_tokens = 2,
                      .seed = ~std::uint64_t{0},
                      .logprobs = 20,
                      .logprob_tokens = {3, 9},
                      .prompt_logprobs = 0,
                      .prompt_logprobs_from = 2};
  request.constraint = {Constraint::Kind::kJsonSchema, "{}"};
  request.reasoning = {7, 8, true, 9};
  request.route = std::make_shared<const SequenceRoute>(
      SequenceRoute{"a digest", {1, 2}, {2, 1, {5, kNotRun, 3, kNoExpert}, {0.1f, 0, 1e-30f, 0}}});
  request.pooling = Pooling::kMean;
  return request;
}

TokenEvent event_with_logprobs() {
  return {.id = 13,
          .token = 14,
          .cached_tokens = 15,
          .logprobs = LogprobEntry{-0.5f, {{14, -0.5f}, {2, -1.25f}}, 3},
          .prompt = {{-3.0f, {{7, -0.0f}}}, {-std::numeric_limits<float>::infinity(), {}}},
          .state = {0.5f, -2.0f}};
}

EngineStats sample_stats() {
  EngineStats stats;
  stats.scheduler = {.preemptions = 1,
                     .prefix_queries = 2,
                     .prefix_hits = 3,
                     .prompt_tokens = 4,
                     .generation_tokens = 5,
                     .tokens_run = 12,
                     .drafts = 13,
                     .drafted_tokens = 10,
                     .accepted_tokens = 11,
                     .running = 6,
                     .waiting = 7,
                     .blocks = 8,
                     .blocks_in_use = 9};
  stats.comm.resize(2);
  stats.comm[1].all_to_all = {
      .calls = 1, .messages = 2, .bytes = 3, .node_bytes = 4, .seconds = 0.5, .waiting_s = 0.25};
  stats.expert_rows = {{1, 2, 3}, {4, 5, 6}};
  stats.rank_rows = {{6, 0}, {7, 8}};
  stats.local_activation_rate = 0.75;
  return stats;
}

// One of each kind, with every kind of field in it.
std::vector<ToRanks> to_ranks() {
  return {Submit{sample_request()}, Abort{42}, Stop{}};
}
std::vector<FromRanks> from_ranks() {
  return {Ready{kLinkVersion, 2, 3, 4096, "foe", "a digest", "experts=int8"},
          NewTokens{{{7, 8, {}}, {9, 10, FinishReason::kStop}, {11, 12, FinishReason::kLength}, event_with_logprobs()}},
          Refused{5, 500, "why"},
          Alive{1500},
          Report{sample_stats()},
          SchedulerReport{sample_stats().scheduler}};
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
  EXPECT_EQ(got.priority, sent.priority);
  EXPECT_EQ(got.sampling.presence_penalty, sent.sampling.presence_penalty);
  EXPECT_EQ(got.sampling.frequency_penalty, sent.sampling.frequency_penalty);
  EXPECT_EQ(got.sampling.repetition_penalty, sent.sampling.repetition_penalty);
  ASSERT_EQ(got.sampling.logit_bias.size(), 2u);
  EXPECT_EQ(got.sampling.logit_bias[1].token, 10);
  EXPECT_EQ(got.sampling.logit_bias[1].bias, 2.5f);
  EXPECT_EQ(got.sampling.allowed_tokens, sent.sampling.allowed_tokens);
  EXPECT_EQ(got.sampling.bad_words, sent.sampling.bad_words);
  EXPECT_EQ(got.sampling.min_tokens, sent.sampling.min_tokens);
  EXPECT_EQ(got.sampling.logprobs, sent.sampling.logprobs);
  EXPECT_EQ(got.sampling.logprob_tokens, sent.sampling.logprob_tokens);
  EXPECT_EQ(got.sampling.prompt_logprobs, sent.sampling.prompt_logprobs);
  EXPECT_EQ(got.sampling.prompt_logprobs_from, sent.sampling.prompt_logprobs_from);
  EXPECT_EQ(got.constraint.kind, sent.constraint.kind);
  EXPECT_EQ(got.constraint.rule, sent.constraint.rule);
  EXPECT_EQ(got.reasoning, sent.reasoning);
  EXPECT_EQ(got.pooling, sent.pooling);
  ASSERT_TRUE(got.route);
  EXPECT_EQ(got.route->model, sent.route->model);
  EXPECT_EQ(got.route->tokens, sent.route->tokens);
  EXPECT_EQ(got.route->route.layers, 2);
  EXPECT_EQ(got.route->route.entries, 1);
  EXPECT_EQ(got.route->route.experts_TLK, sent.route->route.experts_TLK);
  EXPECT_EQ(got.route->route.weights_TLK, sent.route->route.weights_TLK);
  Request without = sent;
  without.route.reset();
  EXPECT_FALSE(std::get<Submit>(parse_to_ranks(payload_of(framed(ToRanks(Submit{without}))))).request.route);
}

TEST(Link, ARouteFitsItsTokens) {
  const auto refuse = [](auto&& change) {
    Request request = sample_request();
    SequenceRoute route = *request.route;
    change(route);
    request.route = std::make_shared<const SequenceRoute>(route);
    const std::string payload = payload_of(framed(ToRanks(Submit{request})));
    EXPECT_THAT([&] { parse_to_ranks(payload); }, ThrowsMessage<Error>(HasSubstr("link: expected a route of ")));
  };
  refuse([](SequenceRoute& r) { r.tokens.push_back(1); });
  refuse([](SequenceRoute& r) { r.route.layers = 0; });
  refuse([](SequenceRoute& r) { r.route.layers = -2, r.route.entries = -1; });
  refuse([](SequenceRoute& r) { r.route.entries = 1 << 30; });
  refuse([](SequenceRoute& r) { r.route.weights_TLK.pop_back(); });
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
  EXPECT_EQ(ready.model, "a digest");
  const auto tokens = std::get<NewTokens>(parse_from_ranks(payload_of(framed(messages[1]))));
  ASSERT_EQ(tokens.events.size(), 4u);
  EXPECT_EQ(tokens.events[0].id, 7);
  EXPECT_EQ(tokens.events[0].token, 8);
  EXPECT_EQ(tokens.events[0].finish, std::nullopt);
  EXPECT_EQ(tokens.events[1].finish, FinishReason::kStop);
  EXPECT_EQ(tokens.events[2].finish, FinishReason::kLength);
  EXPECT_FALSE(tokens.events[2].logprobs.has_value());
  EXPECT_TRUE(tokens.events[2].prompt.empty());
  const TokenEvent& event = tokens.events[3];
  EXPECT_EQ(event.cached_tokens, 15);
  EXPECT_EQ(event.logprobs->logprob, -0.5f);
  ASSERT_EQ(event.logprobs->top.size(), 2u);
  EXPECT_EQ(event.logprobs->rank, 3);
  EXPECT_EQ(event.logprobs->top[1].token, 2);
  EXPECT_EQ(event.logprobs->top[1].logprob, -1.25f);
  ASSERT_EQ(event.prompt.size(), 2u);
  EXPECT_EQ(event.prompt[0].logprob, -3.0f);
  EXPECT_EQ(event.prompt[0].top.at(0).token, 7);
  EXPECT_EQ(event.prompt[1].logprob, -std::numeric_limits<float>::infinity());
  EXPECT_THAT(event.state, testing::ElementsAre(0.5f, -2.0f));
  const auto refused = std::get<Refused>(parse_from_ranks(payload_of(framed(messages[2]))));
  EXPECT_EQ(refused.id, 5);
  EXPECT_EQ(refused.status, 500);
  EXPECT_EQ(refused.reason, "why");
  EXPECT_EQ(std::get<Alive>(parse_from_ranks(payload_of(framed(messages[3])))).silence_ms, 1500);
  const EngineStats stats = std::get<Report>(parse_from_ranks(payload_of(framed(messages[4])))).stats;
  EXPECT_EQ(stats.scheduler.preemptions, 1);
  EXPECT_EQ(stats.scheduler.generation_tokens, 5);
  EXPECT_EQ(stats.scheduler.drafted_tokens, 10);
  EXPECT_EQ(stats.scheduler.accepted_tokens, 11);
  EXPECT_EQ(stats.scheduler.blocks_in_use, 9);
  ASSERT_EQ(stats.comm.size(), 2u);
  EXPECT_EQ(stats.comm[1].all_to_all.node_bytes, 4u);
  EXPECT_EQ(stats.comm[1].all_to_all.waiting_s, 0.25);
  EXPECT_EQ(stats.expert_rows, sample_stats().expert_rows);
  EXPECT_EQ(stats.rank_rows, sample_stats().rank_rows);
  EXPECT_EQ(stats.local_activation_rate, 0.75);
  const SchedulerStats load = std::get<SchedulerReport>(parse_from_ranks(payload_of(framed(messages[5])))).stats;
  EXPECT_EQ(load.running, 6);
  EXPECT_EQ(load.tokens_run, 12);
  EXPECT_EQ(load.drafts, 13);
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
              ThrowsMessage<Error>("link: expected a kind of message below 6, got 255"));

  std::string ready = payload_of(framed(from_ranks()[0]));
  ready[1] = 77;
  EXPECT_THAT([&] { parse_from_ranks(ready); },
              ThrowsMessage<Error>("link: expected version 9 of the protocol, got 77"));

  // A count of four thousand million, in a message of a few bytes.
  std::string tokens = payload_of(framed(FromRanks(NewTokens{})));
  std::memset(tokens.data() + 1, 0xff, 4);
  EXPECT_THAT([&] { parse_from_ranks(tokens); },
              ThrowsMessage<Error>("link: expected at most 0 elements of 34 bytes, got 4294967295"));

  EXPECT_THAT([] { parse_from_ranks(payload_of(framed(FromRanks(Alive{0})))); },
              ThrowsMessage<Error>("link: expected a positive number of milliseconds, got 0"));
}

template <typename T>
std::string with(std::string payload, std::size_t at, T value) {
  std::memcpy(payload.data() + at, &value, sizeof value);
  return payload;
}

TEST(Link, RefusesEventsThatAreOutOfRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // Kind, number of events; id, token, finish, cached tokens, two times, one entry of logprobs: its own, the others'
  // number and the first of these; the second; its rank; number of the prompt's entries, then these; length of the
  // state.
  const std::string payload = payload_of(framed(FromRanks(NewTokens{{event_with_logprobs()}})));
  const std::size_t event = 5, token = event + 8, finish = token + 4, cached = finish + 1, queue = cached + 4,
                    has_entry = queue + 8, logprob = has_entry + 1, top = logprob + 4, named = top + 4,
                    prompt = named + 16 + 4;
  ASSERT_NO_THROW(parse_from_ranks(payload));
  const std::pair<std::string, std::string> cases[] = {
      {with(payload, token, std::int32_t{-1}), "expected a token of at least 0, got -1"},
      {with(payload, finish, std::uint8_t{3}), "expected a finish reason of at most 2, got 3"},
      {with(payload, cached, std::int32_t{-7}), "expected a number of cached tokens of at least 0, got -7"},
      {with(payload, queue, -1.0f), "expected seconds of at least 0, got -1"},
      {with(payload, queue + 4, nan), "expected seconds of at least 0, got nan"},
      {with(payload, has_entry, std::uint8_t{2}), "expected 0 or 1 entries of logprobs, got 2"},
      {with(payload, logprob, 0.5f), "expected a logprob of at most 0, got 0.5"},
      {with(payload, logprob, nan), "expected a logprob of at most 0, got nan"},
      {with(payload, top, ~std::uint32_t{0}), "elements of 8 bytes, got 4294967295"},
      {with(payload, named, std::int32_t{-2}), "expected a token of at least 0, got -2"},
      {with(payload, named + 4, nan), "expected a logprob of at most 0, got nan"},
      {with(payload, prompt - 4, std::int32_t{0}), "expected a rank of at least 1, got 0"},
      {with(payload, prompt, ~std::uint32_t{0}), "elements of 12 bytes, got 4294967295"},
      {with(payload, payload.size() - 4, nan), "expected a state of finite numbers"},
      {with(payload, payload.size() - 12, ~std::uint32_t{0}), "elements of 4 bytes, got 4294967295"},
      {with(payload, payload.size() - 12, std::uint32_t{1}), "expected the end of the message"},
  };
  for (const auto& c : cases)
    EXPECT_THAT([&] { parse_from_ranks(c.first); }, ThrowsMessage<Error>(HasSubstr(c.second)));
}

TEST(Link, RefusesReportsThatAreNone) {
  EngineStats stats = sample_stats();
  stats.expert_rows[1].pop_back();
  EXPECT_THAT([&] { parse_from_ranks(payload_of(framed(FromRanks(Report{stats})))); },
              ThrowsMessage<Error>("link: expected rows of 3 numbers, got one of 2"));
  stats = sample_stats();
  stats.local_activation_rate = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT([&] { parse_from_ranks(payload_of(framed(FromRanks(Report{stats})))); },
              ThrowsMessage<Error>("link: expected a rate from 0 to 1, got nan"));
}

TEST(Link, RefusesRequestsThatAreNone) {
  Request request = sample_request();
  request.route.reset();
  const std::string payload = payload_of(framed(ToRanks(Submit{request})));
  EXPECT_THAT([&] { parse_to_ranks(with(payload, payload.size() - 1, std::uint8_t{3})); },
              ThrowsMessage<Error>("link: expected a kind of pooling of at most 2, got 3"));
  EXPECT_THAT([&] { parse_to_ranks(with(payload, payload.size() - 2, std::uint8_t{2})); },
              ThrowsMessage<Error>("link: expected 0 or 1 routes, got 2"));
  const std::size_t schema = payload.size() - 2 - 2 - 4, open = schema - 1, kind = open - 1,
                    named = kind - 3 * 4 - 8 - 4 - 2 * 4 - 4, words = named - (4 + 4) - (4 + 8) - 4,
                    allowed = words - 2 * 4 - 4, bias = allowed - 2 * 8 - 4;
  EXPECT_THAT([&] { parse_to_ranks(with(payload, kind, std::uint8_t{6})); },
              ThrowsMessage<Error>("link: expected a kind of constraint of at most 5, got 6"));
  EXPECT_THAT([&] { parse_to_ranks(with(payload, open, std::uint8_t{2})); },
              ThrowsMessage<Error>("link: expected 0 or 1 for open objects, got 2"));
  for (const std::size_t at : {std::size_t{9}, bias, allowed, words, words + 4, named, schema})
    EXPECT_THAT([&] { parse_to_ranks(with(payload, at, ~std::uint32_t{0})); },
                ThrowsMessage<Error>(HasSubstr("got 4294967295")));
}

// Random changes make an Error, or another message of the protocol.
TEST(Link, SurvivesRandomChanges) {
  const std::string request = payload_of(framed(ToRanks(Submit{sample_request()})));
  const std::string tokens = payload_of(framed(from_ranks()[1]));
  int accepted = 0, refused = 0;
  const auto attempt = [&](const std::string& bytes, std::uint64_t trial, const auto& parse) {
    std::string changed = bytes;
    for (std::uint64_t i = 0; i <= random_bits(trial, 0) % 4; ++i) {
      const std::uint64_t r = random_bits(trial, i + 1);
      changed[r % changed.size()] = static_cast<char>(r >> 32);
    }
    try {
      const auto message = parse(changed);
      EXPECT_EQ(payload_of(framed(message)), changed);
      ++accepted;
    } catch (const Error&) {
      ++refused;
    }
  };
  for (std::uint64_t trial = 0; trial < 20000; ++trial) {
    attempt(request, trial, parse_to_ranks);
    attempt(tokens, trial, parse_from_ranks);
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
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

// As after a restart, when all requests are submitted again. If each message moved all that follow, this would take
// hours.
TEST(MessageBuffer, HandsOutManyMessagesThatCameAtOnce) {
  constexpr std::int64_t kMessages = 2'000'000;
  std::string bytes;
  for (std::int64_t i = 0; i < kMessages; ++i) append_message(bytes, ToRanks(Abort{i}));
  MessageBuffer buffer;
  buffer.append(std::string_view(bytes).substr(0, bytes.size() - 3));
  std::int64_t expected = 0;
  while (const auto payload = buffer.next()) ASSERT_EQ(std::get<Abort>(parse_to_ranks(*payload)).id, expected++);
  EXPECT_EQ(expected, kMessages - 1);
  buffer.append(std::string_view(bytes).substr(bytes.size() - 3));
  const auto last = buffer.next();
  ASSERT_TRUE(last);
  EXPECT_EQ(std::get<Abort>(parse_to_ranks(*last)).id, kMessages - 1);
  EXPECT_FALSE(buffer.next());
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
