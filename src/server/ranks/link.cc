#include "server/ranks/link.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "engine/sampler.h"

namespace foe {
namespace {

// A token that an entry of logprobs names takes eight bytes, and so does the entry's head with its own token.
static_assert(8 * kMaxPromptLogprobs + 4096 <= kMaxLinkMessage);

// Appends fields to a message.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  template <typename T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(const std::string& value) {
    number(static_cast<std::uint32_t>(value.size()));
    out_ += value;
  }
  void ids(const std::vector<std::int32_t>& values) {
    number(static_cast<std::uint32_t>(values.size()));
    out_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(std::int32_t));
  }

 private:
  std::string& out_;
};

// Takes fields from a payload.
class Reader {
 public:
  explicit Reader(std::string_view payload) : left_(payload) {}

  template <typename T>
  T number() {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  // The number of elements that follow, of `element_bytes` each: no more than the message has room for.
  std::size_t count(std::size_t element_bytes) {
    const std::size_t n = number<std::uint32_t>();
    if (n > left_.size() / element_bytes)
      fail("link: expected at most {} elements of {} bytes, got {}", left_.size() / element_bytes, element_bytes, n);
    return n;
  }
  std::string text() { return std::string(take(count(1))); }
  std::vector<std::int32_t> ids() {
    std::vector<std::int32_t> values(count(sizeof(std::int32_t)));
    const std::string_view bytes = take(values.size() * sizeof(std::int32_t));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  void end() const {
    if (!left_.empty()) fail("link: expected the end of the message, got {} bytes more", left_.size());
  }

 private:
  std::string_view take(std::size_t bytes) {
    if (bytes > left_.size()) fail("link: expected {} bytes more in a message, got {}", bytes, left_.size());
    const std::string_view taken = left_.substr(0, bytes);
    left_.remove_prefix(bytes);
    return taken;
  }

  std::string_view left_;
};

void write(Writer& w, const SamplingParams& p) {
  w.number(p.temperature);
  w.number(p.top_p);
  w.number<std::int32_t>(p.top_k);
  w.number(p.min_p);
  w.number(p.presence_penalty);
  w.number(p.frequency_penalty);
  w.number(p.repetition_penalty);
  w.number(static_cast<std::uint32_t>(p.logit_bias.size()));
  for (const LogitBias& bias : p.logit_bias) {
    w.number(bias.token);
    w.number(bias.bias);
  }
  w.number<std::int32_t>(p.min_tokens);
  w.number(p.seed);
  w.number<std::int32_t>(p.logprobs);
  w.number<std::int32_t>(p.prompt_logprobs);
}
void read(Reader& r, SamplingParams& p) {
  p.temperature = r.number<float>();
  p.top_p = r.number<float>();
  p.top_k = r.number<std::int32_t>();
  p.min_p = r.number<float>();
  p.presence_penalty = r.number<float>();
  p.frequency_penalty = r.number<float>();
  p.repetition_penalty = r.number<float>();
  p.logit_bias.resize(r.count(sizeof(std::int32_t) + sizeof(float)));
  for (LogitBias& bias : p.logit_bias) {
    bias.token = r.number<std::int32_t>();
    bias.bias = r.number<float>();
  }
  p.min_tokens = r.number<std::int32_t>();
  p.seed = r.number<std::uint64_t>();
  p.logprobs = r.number<std::int32_t>();
  p.prompt_logprobs = r.number<std::int32_t>();
}

void write(Writer& w, const Constraint& c) {
  w.number(static_cast<std::uint8_t>(c.kind));
  w.text(c.schema);
}
void read(Reader& r, Constraint& c) {
  constexpr auto kLast = static_cast<std::uint8_t>(Constraint::Kind::kJsonSchema);
  const auto kind = r.number<std::uint8_t>();
  if (kind > kLast) fail("link: expected a kind of constraint of at most {}, got {}", kLast, kind);
  c.kind = static_cast<Constraint::Kind>(kind);
  c.schema = r.text();
}

void write(Writer& w, const Submit& m) {
  const Request& r = m.request;
  w.number(r.id);
  w.ids(r.prompt.tokens());
  w.ids(r.output);
  w.number<std::int32_t>(r.max_tokens);
  w.ids(r.stop_ids);
  w.number<std::int32_t>(r.priority);
  write(w, r.sampling);
  write(w, r.constraint);
}
void read(Reader& r, Submit& m) {
  m.request.id = r.number<std::int64_t>();
  m.request.prompt = r.ids();
  m.request.output = r.ids();
  m.request.max_tokens = r.number<std::int32_t>();
  m.request.stop_ids = r.ids();
  m.request.priority = r.number<std::int32_t>();
  read(r, m.request.sampling);
  read(r, m.request.constraint);
}

void write(Writer& w, const Abort& m) {
  w.number(m.id);
}
void read(Reader& r, Abort& m) {
  m.id = r.number<std::int64_t>();
}

void write(Writer&, const Stop&) {}
void read(Reader&, Stop&) {}

void write(Writer& w, const Ready& m) {
  w.number(m.version);
  w.number(m.ranks);
  w.number(m.threads);
  w.number(m.kv_tokens);
  w.text(m.plan);
  w.text(m.model);
}
void read(Reader& r, Ready& m) {
  m.version = r.number<std::uint32_t>();
  if (m.version != kLinkVersion) fail("link: expected version {} of the protocol, got {}", kLinkVersion, m.version);
  m.ranks = r.number<std::int32_t>();
  m.threads = r.number<std::int32_t>();
  m.kv_tokens = r.number<std::int32_t>();
  m.plan = r.text();
  m.model = r.text();
}

std::int32_t read_not_negative(Reader& r, const char* name) {
  const auto value = r.number<std::int32_t>();
  if (value < 0) fail("link: expected {} of at least 0, got {}", name, value);
  return value;
}

float read_logprob(Reader& r) {
  const auto value = r.number<float>();
  if (!(value <= 0.0f)) fail("link: expected a logprob of at most 0, got {}", value);
  return value;
}

float read_seconds(Reader& r) {
  const auto value = r.number<float>();
  if (!(value >= 0.0f)) fail("link: expected seconds of at least 0, got {}", value);
  return value;
}

constexpr std::size_t kNamedBytes = sizeof(std::int32_t) + sizeof(float);
constexpr std::size_t kEntryBytes = sizeof(float) + sizeof(std::uint32_t);  // at least

void write(Writer& w, const LogprobEntry& entry) {
  w.number(entry.logprob);
  w.number(static_cast<std::uint32_t>(entry.top.size()));
  for (const TokenLogprob& named : entry.top) {
    w.number(named.token);
    w.number(named.logprob);
  }
}
void read(Reader& r, LogprobEntry& entry) {
  entry.logprob = read_logprob(r);
  entry.top.resize(r.count(kNamedBytes));
  for (TokenLogprob& named : entry.top) {
    named.token = read_not_negative(r, "a token");
    named.logprob = read_logprob(r);
  }
}

// One byte for TokenEvent::finish.
enum Finish : std::uint8_t { kNotYet, kStopped, kFull };

void write(Writer& w, const TokenEvent& event) {
  w.number(event.id);
  w.number(event.token);
  w.number<std::uint8_t>(!event.finish ? kNotYet : *event.finish == FinishReason::kStop ? kStopped : kFull);
  w.number<std::int32_t>(event.cached_tokens);
  w.number(event.queue_s);
  w.number(event.prefill_s);
  w.number<std::uint8_t>(event.logprobs.has_value());
  if (event.logprobs) write(w, *event.logprobs);
  w.number(static_cast<std::uint32_t>(event.prompt.size()));
  for (const LogprobEntry& entry : event.prompt) write(w, entry);
}
void read(Reader& r, TokenEvent& event) {
  event.id = r.number<std::int64_t>();
  event.token = read_not_negative(r, "a token");
  const auto finish = r.number<std::uint8_t>();
  if (finish > kFull) fail("link: expected a finish reason of at most {}, got {}", int{kFull}, finish);
  if (finish != kNotYet) event.finish = finish == kStopped ? FinishReason::kStop : FinishReason::kLength;
  event.cached_tokens = read_not_negative(r, "a number of cached tokens");
  event.queue_s = read_seconds(r);
  event.prefill_s = read_seconds(r);
  const auto has_logprobs = r.number<std::uint8_t>();
  if (has_logprobs > 1) fail("link: expected 0 or 1 entries of logprobs, got {}", has_logprobs);
  if (has_logprobs == 1) read(r, event.logprobs.emplace());
  event.prompt.resize(r.count(kEntryBytes));
  for (LogprobEntry& entry : event.prompt) read(r, entry);
}

// At least: id, token, finish, cached tokens, two times, whether there are logprobs, and how many of the prompt.
constexpr std::size_t kEventBytes =
    sizeof(std::int64_t) + 3 * sizeof(std::int32_t) + 2 * sizeof(float) + 2 * sizeof(std::uint8_t);

void write(Writer& w, const Tokens& m) {
  w.number(static_cast<std::uint32_t>(m.events.size()));
  for (const TokenEvent& event : m.events) write(w, event);
}
void read(Reader& r, Tokens& m) {
  m.events.resize(r.count(kEventBytes));
  for (TokenEvent& event : m.events) read(r, event);
}

void write(Writer& w, const Refused& m) {
  w.number(m.id);
  w.number(m.status);
  w.text(m.reason);
}
void read(Reader& r, Refused& m) {
  m.id = r.number<std::int64_t>();
  m.status = r.number<std::int32_t>();
  if (m.status < 400 || m.status > 599) fail("link: expected a status of 400 to 599, got {}", m.status);
  m.reason = r.text();
}

void write(Writer& w, const Alive& m) {
  w.number(m.silence_ms);
}
void read(Reader& r, Alive& m) {
  m.silence_ms = r.number<std::int32_t>();
  if (m.silence_ms <= 0) fail("link: expected a positive number of milliseconds, got {}", m.silence_ms);
}

// --- reports ---

void write(Writer& w, const SchedulerStats& s) {
  for (const std::int64_t count :
       {s.preemptions, s.prefix_queries, s.prefix_hits, s.prompt_tokens, s.generation_tokens})
    w.number(count);
  for (const std::int32_t count : {s.running, s.waiting, s.blocks, s.blocks_in_use}) w.number(count);
}
void read(Reader& r, SchedulerStats& s) {
  for (std::int64_t* count :
       {&s.preemptions, &s.prefix_queries, &s.prefix_hits, &s.prompt_tokens, &s.generation_tokens})
    *count = r.number<std::int64_t>();
  for (int* count : {&s.running, &s.waiting, &s.blocks, &s.blocks_in_use}) *count = r.number<std::int32_t>();
}

constexpr std::size_t kCounterBytes = 4 * sizeof(std::uint64_t) + 2 * sizeof(double);

void write(Writer& w, const CommCounters& c) {
  for (const CommCounter* counter : {&c.broadcast, &c.sum, &c.gather, &c.all_to_all}) {
    for (const std::uint64_t n : {counter->calls, counter->messages, counter->bytes, counter->node_bytes}) w.number(n);
    w.number(counter->seconds);
    w.number(counter->waiting_s);
  }
}
void read(Reader& r, CommCounters& c) {
  for (CommCounter* counter : {&c.broadcast, &c.sum, &c.gather, &c.all_to_all}) {
    for (std::uint64_t* n : {&counter->calls, &counter->messages, &counter->bytes, &counter->node_bytes})
      *n = r.number<std::uint64_t>();
    counter->seconds = r.number<double>();
    counter->waiting_s = r.number<double>();
  }
}

// A table: rows of numbers.
void write(Writer& w, const std::vector<std::vector<std::int64_t>>& table) {
  w.number(static_cast<std::uint32_t>(table.size()));
  for (const std::vector<std::int64_t>& row : table) {
    w.number(static_cast<std::uint32_t>(row.size()));
    for (const std::int64_t n : row) w.number(n);
  }
}
void read(Reader& r, std::vector<std::vector<std::int64_t>>& table) {
  table.resize(r.count(sizeof(std::uint32_t)));
  for (std::vector<std::int64_t>& row : table) {
    row.resize(r.count(sizeof(std::int64_t)));
    if (row.size() != table.front().size())
      fail("link: expected rows of {} numbers, got one of {}", table.front().size(), row.size());
    for (std::int64_t& n : row) n = r.number<std::int64_t>();
  }
}

void write(Writer& w, const Report& m) {
  write(w, m.stats.scheduler);
  w.number(static_cast<std::uint32_t>(m.stats.comm.size()));
  for (const CommCounters& rank : m.stats.comm) write(w, rank);
  write(w, m.stats.expert_rows);
  write(w, m.stats.rank_rows);
  w.number(m.stats.local_activation_rate);
}
void read(Reader& r, Report& m) {
  read(r, m.stats.scheduler);
  m.stats.comm.resize(r.count(4 * kCounterBytes));
  for (CommCounters& rank : m.stats.comm) read(r, rank);
  read(r, m.stats.expert_rows);
  read(r, m.stats.rank_rows);
  const double rate = m.stats.local_activation_rate = r.number<double>();
  if (!(rate >= 0 && rate <= 1)) fail("link: expected a rate from 0 to 1, got {}", rate);
}

template <typename Message>
void append(std::string& out, const Message& message) {
  const std::size_t start = out.size();
  Writer writer(out);
  writer.number<std::uint32_t>(0);  // the length, once it is known
  writer.number(static_cast<std::uint8_t>(message.index()));
  std::visit([&](const auto& m) { write(writer, m); }, message);
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
    read(reader, message);
    reader.end();
    return message;
  }
}

template <typename Message>
Message parse(std::string_view payload) {
  Reader reader(payload);
  const std::size_t kind = reader.number<std::uint8_t>();
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
