#include "server/ranks/link.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "engine/sampler.h"

namespace foe {
namespace {

// A token that an entry of logprobs names takes eight bytes, and so does the entry's head with its own token.
static_assert(8 * kMaxPromptLogprobs + 4096 <= kMaxLinkMessage);

constexpr std::int64_t kMostRouted = 1 << 24;  // entries of one token in all layers

template <typename T>
concept Number = std::is_arithmetic_v<T>;

// Appends fields to a message.
class Writer {
 public:
  static constexpr bool kReads = false;

  explicit Writer(std::string& out) : out_(out) {}

  template <Number... T>
  void numbers(const T&... values) {
    (out_.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
  }
  template <Number T>
  void numbers(const std::vector<T>& values) {
    count(values.size());
    out_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void text(const std::string& value) {
    count(value.size());
    out_ += value;
  }
  void tokens(const Prompt& prompt) { numbers(prompt.tokens()); }
  template <typename T>
  void list(const std::vector<T>& values, std::size_t, const auto& each) {
    count(values.size());
    for (const T& value : values) each(value);
  }
  // What we write is right.
  template <typename... Args>
  void expect(bool, fmt::format_string<const Args&...>, const Args&...) const {}

 private:
  void count(std::size_t n) { numbers(static_cast<std::uint32_t>(n)); }

  std::string& out_;
};

// Takes fields from a payload.
class Reader {
 public:
  static constexpr bool kReads = true;

  explicit Reader(std::string_view payload) : left_(payload) {}

  template <Number... T>
  void numbers(T&... values) {
    (std::memcpy(&values, take(sizeof values).data(), sizeof values), ...);
  }
  template <Number T>
  void numbers(std::vector<T>& values) {
    values.resize(count(sizeof(T)));
    const std::string_view bytes = take(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  }
  void text(std::string& value) { value = take(count(1)); }
  void tokens(Prompt& prompt) {
    std::vector<std::int32_t> ids;
    numbers(ids);
    prompt = std::move(ids);
  }
  // Elements of at least so many bytes each.
  template <typename T>
  void list(std::vector<T>& values, std::size_t element_bytes, const auto& each) {
    values.resize(count(element_bytes));
    for (T& value : values) each(value);
  }
  // Refuses the message unless what was read is right.
  template <typename... Args>
  void expect(bool right, fmt::format_string<const Args&...> expected, const Args&... args) const {
    if (!right) fail("link: expected {}", fmt::format(expected, args...));
  }
  void end() const {
    if (!left_.empty()) fail("link: expected the end of the message, got {} bytes more", left_.size());
  }

 private:
  // The number of elements that follow, of `element_bytes` each: no more than the message has room for.
  std::size_t count(std::size_t element_bytes) {
    std::uint32_t n = 0;
    numbers(n);
    if (n > left_.size() / element_bytes)
      fail("link: expected at most {} elements of {} bytes, got {}", left_.size() / element_bytes, element_bytes, n);
    return n;
  }
  std::string_view take(std::size_t bytes) {
    if (bytes > left_.size()) fail("link: expected {} bytes more in a message, got {}", bytes, left_.size());
    const std::string_view taken = left_.substr(0, bytes);
    left_.remove_prefix(bytes);
    return taken;
  }

  std::string_view left_;
};

// fields() lists the fields of a message, or of what is in it, in their order on the wire, and what is expected of
// them. A Writer visits them in a T that is const, a Reader in one that it fills.
template <typename T, typename U>
concept Is = std::is_same_v<std::remove_const_t<T>, U>;

void fields(auto& v, Is<SamplingParams> auto& p) {
  v.numbers(p.temperature, p.top_p, p.top_k, p.min_p, p.presence_penalty, p.frequency_penalty, p.repetition_penalty);
  v.list(p.logit_bias, sizeof(std::int32_t) + sizeof(float), [&](auto& bias) { v.numbers(bias.token, bias.bias); });
  v.list(p.allowed_tokens, sizeof(std::int32_t), [&](auto& token) { v.numbers(token); });
  v.list(p.bad_words, sizeof(std::uint32_t),
         [&](auto& word) { v.list(word, sizeof(std::int32_t), [&](auto& token) { v.numbers(token); }); });
  v.numbers(p.logprob_tokens);
  v.numbers(p.min_tokens, p.seed, p.logprobs, p.prompt_logprobs, p.prompt_logprobs_from);
}

template <typename V>
void fields(V& v, Is<Constraint> auto& c) {
  constexpr auto kLast = static_cast<std::uint8_t>(Constraint::Kind::kGrammar);
  auto kind = static_cast<std::uint8_t>(c.kind);
  std::uint8_t open = c.open_objects;
  v.numbers(kind, open);
  v.expect(open <= 1, "0 or 1 for open objects, got {}", open);
  v.expect(kind <= kLast, "a kind of constraint of at most {}, got {}", kLast, kind);
  if constexpr (V::kReads) {
    c.kind = static_cast<Constraint::Kind>(kind);
    c.open_objects = open == 1;
  }
  v.text(c.rule);
}

template <typename V>
void fields(V& v, Is<ReasoningMarks> auto& m) {
  std::uint8_t begun = m.begun;
  v.numbers(m.begin, m.end, m.budget, begun);
  v.expect(begun <= 1, "0 or 1 for reasoning that has begun, got {}", begun);
  if constexpr (V::kReads) m.begun = begun == 1;
}

void fields(auto& v, Is<SequenceRoute> auto& r) {
  v.text(r.model);
  v.numbers(r.tokens);
  v.numbers(r.route.layers, r.route.entries);
  v.numbers(r.route.experts_TLK);
  v.numbers(r.route.weights_TLK);
  const std::size_t experts = r.route.experts_TLK.size(), weights = r.route.weights_TLK.size();
  const std::int64_t each = std::int64_t{r.route.layers} * r.route.entries;
  v.expect(r.route.layers > 0 && r.route.entries > 0 && each <= kMostRouted &&
               experts == r.tokens.size() * static_cast<std::size_t>(each) && weights == experts,
           "a route of {} tokens through {} layers, at most {} experts each, got {} experts and {} weights",
           r.tokens.size(), r.route.layers, r.route.entries, experts, weights);
}

template <typename V>
void fields(V& v, Is<std::shared_ptr<const SequenceRoute>> auto& route) {
  std::uint8_t present = route != nullptr;
  v.numbers(present);
  v.expect(present <= 1, "0 or 1 routes, got {}", present);
  if (present == 0) return;
  if constexpr (V::kReads) {
    SequenceRoute read;
    fields(v, read);
    route = std::make_shared<const SequenceRoute>(std::move(read));
  } else {
    fields(v, *route);
  }
}

template <typename V>
void fields(V& v, Is<Pooling> auto& pooling) {
  constexpr auto kLast = static_cast<std::uint8_t>(Pooling::kMean);
  auto kind = static_cast<std::uint8_t>(pooling);
  v.numbers(kind);
  v.expect(kind <= kLast, "a kind of pooling of at most {}, got {}", kLast, kind);
  if constexpr (V::kReads) pooling = static_cast<Pooling>(kind);
}

void fields(auto& v, Is<Submit> auto& m) {
  auto& r = m.request;
  v.numbers(r.id);
  v.tokens(r.prompt);
  v.numbers(r.output);
  v.numbers(r.max_tokens);
  v.numbers(r.stop_ids);
  v.numbers(r.priority, r.cache_salt);
  fields(v, r.reasoning);
  fields(v, r.sampling);
  fields(v, r.constraint);
  fields(v, r.route);
  fields(v, r.pooling);
}

void fields(auto& v, Is<Abort> auto& m) {
  v.numbers(m.id);
}

void fields(auto&, Is<Stop> auto&) {}

void fields(auto& v, Is<Ready> auto& m) {
  v.numbers(m.version);
  v.expect(m.version == kLinkVersion, "version {} of the protocol, got {}", kLinkVersion, m.version);
  v.numbers(m.ranks, m.threads, m.kv_tokens);
  v.text(m.plan);
  v.text(m.model);
  v.text(m.formats);
}

void not_negative(auto& v, auto& value, const char* name) {
  v.numbers(value);
  v.expect(value >= 0, "{} of at least 0, got {}", name, value);
}

// NaN is none.
void logprob(auto& v, auto& value) {
  v.numbers(value);
  v.expect(value <= 0.0f, "a logprob of at most 0, got {}", value);
}

constexpr std::size_t kNamedBytes = sizeof(std::int32_t) + sizeof(float);
constexpr std::size_t kEntryBytes = sizeof(float) + 2 * sizeof(std::uint32_t);  // at least

void fields(auto& v, Is<LogprobEntry> auto& entry) {
  logprob(v, entry.logprob);
  v.list(entry.top, kNamedBytes, [&](auto& named) {
    not_negative(v, named.token, "a token");
    logprob(v, named.logprob);
  });
  v.numbers(entry.rank);
  v.expect(entry.rank > 0, "a rank of at least 1, got {}", entry.rank);
}

// One byte for TokenEvent::finish.
enum Finish : std::uint8_t { kNotYet, kStopped, kFull };

template <typename V>
void finish_reason(V& v, auto& finish) {
  std::uint8_t byte = !finish ? kNotYet : *finish == FinishReason::kStop ? kStopped : kFull;
  v.numbers(byte);
  v.expect(byte <= kFull, "a finish reason of at most {}, got {}", int{kFull}, byte);
  if constexpr (V::kReads)
    if (byte != kNotYet) finish = byte == kStopped ? FinishReason::kStop : FinishReason::kLength;
}

template <typename V>
void fields(V& v, Is<TokenEvent> auto& event) {
  v.numbers(event.id);
  not_negative(v, event.token, "a token");
  finish_reason(v, event.finish);
  not_negative(v, event.cached_tokens, "a number of cached tokens");
  not_negative(v, event.queue_s, "seconds");
  not_negative(v, event.prefill_s, "seconds");
  std::uint8_t has_logprobs = event.logprobs.has_value();
  v.numbers(has_logprobs);
  v.expect(has_logprobs <= 1, "0 or 1 entries of logprobs, got {}", has_logprobs);
  if constexpr (V::kReads)
    if (has_logprobs == 1) event.logprobs.emplace();
  if (event.logprobs) fields(v, *event.logprobs);
  v.list(event.prompt, kEntryBytes, [&](auto& entry) { fields(v, entry); });
  v.numbers(event.state);
  const bool finite = std::ranges::all_of(event.state, [](float x) { return std::isfinite(x); });
  v.expect(finite, "a state of finite numbers");
}

// At least: id, token, finish, cached tokens, two times, whether there are logprobs, and how many of the prompt and in
// the state.
constexpr std::size_t kEventBytes =
    sizeof(std::int64_t) + 4 * sizeof(std::int32_t) + 2 * sizeof(float) + 2 * sizeof(std::uint8_t);

void fields(auto& v, Is<NewTokens> auto& m) {
  v.list(m.events, kEventBytes, [&](auto& event) { fields(v, event); });
}

void fields(auto& v, Is<Refused> auto& m) {
  v.numbers(m.id, m.status);
  v.expect(m.status >= 400 && m.status <= 599, "a status of 400 to 599, got {}", m.status);
  v.text(m.reason);
}

void fields(auto& v, Is<Alive> auto& m) {
  v.numbers(m.silence_ms);
  v.expect(m.silence_ms > 0, "a positive number of milliseconds, got {}", m.silence_ms);
}

// --- reports ---

void fields(auto& v, Is<SchedulerStats> auto& s) {
  v.numbers(s.preemptions, s.prefix_queries, s.prefix_hits, s.prompt_tokens, s.generation_tokens);
  v.numbers(s.tokens_run, s.drafts, s.drafted_tokens, s.accepted_tokens);
  v.numbers(s.running, s.waiting, s.blocks, s.blocks_in_use);
}

constexpr std::size_t kCounterBytes = 4 * sizeof(std::uint64_t) + 2 * sizeof(double);

void fields(auto& v, Is<CommCounters> auto& c) {
  for (auto* counter : {&c.broadcast, &c.sum, &c.gather, &c.all_to_all, &c.send}) {
    v.numbers(counter->calls, counter->messages, counter->bytes, counter->node_bytes);
    v.numbers(counter->seconds, counter->waiting_s);
  }
}

// Rows of equally many numbers.
void table(auto& v, auto& rows) {
  v.list(rows, sizeof(std::uint32_t), [&](auto& row) {
    v.numbers(row);
    const std::size_t size = row.size(), first = rows.front().size();
    v.expect(size == first, "rows of {} numbers, got one of {}", first, size);
  });
}

void fields(auto& v, Is<Report> auto& m) {
  fields(v, m.stats.scheduler);
  v.list(m.stats.comm, 5 * kCounterBytes, [&](auto& rank) { fields(v, rank); });
  table(v, m.stats.expert_rows);
  table(v, m.stats.rank_rows);
  auto& rate = m.stats.local_activation_rate;
  v.numbers(rate);
  v.expect(rate >= 0 && rate <= 1, "a rate from 0 to 1, got {}", rate);
}

void fields(auto& v, Is<SchedulerReport> auto& m) {
  fields(v, m.stats);
}

template <typename Message>
void append(std::string& out, const Message& message) {
  const std::size_t start = out.size();
  Writer writer(out);
  writer.numbers(std::uint32_t{0});  // the length, once it is known
  writer.numbers(static_cast<std::uint8_t>(message.index()));
  std::visit([&](const auto& m) { fields(writer, m); }, message);
  const std::size_t length = out.size() - start - sizeof(std::uint32_t);
  FOE_CHECK(length <= kMaxLinkMessage, "a message of {} bytes", length);
  const auto word = static_cast<std::uint32_t>(length);
  std::memcpy(out.data() + start, &word, sizeof word);
}

// Reads the alternative whose number the payload begins with.
template <typename Message, std::size_t I = 0>
Message parse(Reader& reader, std::size_t kind) {
  if constexpr (I == std::variant_size_v<Message>) {
    fail("link: expected a kind of message below {}, got {}", I, kind);
  } else {
    if (kind != I) return parse<Message, I + 1>(reader, kind);
    std::variant_alternative_t<I, Message> message;
    fields(reader, message);
    reader.end();
    return message;
  }
}

template <typename Message>
Message parse(std::string_view payload) {
  Reader reader(payload);
  std::uint8_t kind = 0;
  reader.numbers(kind);
  return parse<Message>(reader, kind);
}

}  // namespace

void append_message(std::string& out, const ToRanks& message) {
  append(out, message);
}
void append_message(std::string& out, const FromRanks& message) {
  append(out, message);
}
ToRanks parse_to_ranks(std::string_view payload) {
  return parse<ToRanks>(payload);
}
FromRanks parse_from_ranks(std::string_view payload) {
  return parse<FromRanks>(payload);
}

std::optional<std::string_view> MessageBuffer::next() {
  // What is left moves to the front once it is the smaller part: so no byte moves more than once on average.
  if (used_ > bytes_.size() / 2) bytes_.erase(0, std::exchange(used_, 0));
  const std::string_view left = std::string_view(bytes_).substr(used_);
  std::uint32_t length;
  if (left.size() < sizeof length) return {};
  std::memcpy(&length, left.data(), sizeof length);
  if (length > kMaxLinkMessage) fail("link: expected a message of at most {} bytes, got {}", kMaxLinkMessage, length);
  if (left.size() - sizeof length < length) return {};
  used_ += sizeof length + length;
  return left.substr(sizeof length, length);
}

}  // namespace foe
