#include "server/link.h"

#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "base/error.h"

namespace foe {
namespace {

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

void write(Writer& w, const Submit& m) {
  const Request& r = m.request;
  w.number(r.id);
  w.ids(r.prompt);
  w.ids(r.output);
  w.ids(r.stop_ids);
  w.number<std::int32_t>(r.max_tokens);
  w.number(r.sampling.temperature);
  w.number(r.sampling.top_p);
  w.number<std::int32_t>(r.sampling.top_k);
  w.number(r.sampling.min_p);
  w.number(r.sampling.seed);
}
void read(Reader& r, Submit& m) {
  m.request.id = r.number<std::int64_t>();
  m.request.prompt = r.ids();
  m.request.output = r.ids();
  m.request.stop_ids = r.ids();
  m.request.max_tokens = r.number<std::int32_t>();
  m.request.sampling.temperature = r.number<float>();
  m.request.sampling.top_p = r.number<float>();
  m.request.sampling.top_k = r.number<std::int32_t>();
  m.request.sampling.min_p = r.number<float>();
  m.request.sampling.seed = r.number<std::uint64_t>();
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
}
void read(Reader& r, Ready& m) {
  m.version = r.number<std::uint32_t>();
  if (m.version != kLinkVersion) fail("link: expected version {} of the protocol, got {}", kLinkVersion, m.version);
  m.ranks = r.number<std::int32_t>();
  m.threads = r.number<std::int32_t>();
  m.kv_tokens = r.number<std::int32_t>();
  m.plan = r.text();
}

// One byte for TokenEvent::finish.
enum Finish : std::uint8_t { kNotYet, kStopped, kFull };
constexpr std::size_t kEventBytes = sizeof(std::int64_t) + sizeof(std::int32_t) + sizeof(std::uint8_t);

void write(Writer& w, const Tokens& m) {
  w.number(static_cast<std::uint32_t>(m.events.size()));
  for (const TokenEvent& event : m.events) {
    w.number(event.id);
    w.number(event.token);
    w.number<std::uint8_t>(!event.finish ? kNotYet : *event.finish == FinishReason::kStop ? kStopped : kFull);
  }
}
void read(Reader& r, Tokens& m) {
  m.events.resize(r.count(kEventBytes));
  for (TokenEvent& event : m.events) {
    event.id = r.number<std::int64_t>();
    event.token = r.number<std::int32_t>();
    const auto finish = r.number<std::uint8_t>();
    if (finish > kFull) fail("link: expected a finish reason of at most {}, got {}", int{kFull}, finish);
    if (finish != kNotYet) event.finish = finish == kStopped ? FinishReason::kStop : FinishReason::kLength;
  }
}

void write(Writer& w, const Refused& m) {
  w.number(m.id);
  w.text(m.reason);
}
void read(Reader& r, Refused& m) {
  m.id = r.number<std::int64_t>();
  m.reason = r.text();
}

void write(Writer& w, const Alive& m) {
  w.number(m.silence_ms);
}
void read(Reader& r, Alive& m) {
  m.silence_ms = r.number<std::int32_t>();
  if (m.silence_ms <= 0) fail("link: expected a positive number of milliseconds, got {}", m.silence_ms);
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
  bytes_.erase(0, used_);
  used_ = 0;
  std::uint32_t length;
  if (bytes_.size() < sizeof length) return {};
  std::memcpy(&length, bytes_.data(), sizeof length);
  if (length > kMaxLinkMessage) fail("link: expected a message of at most {} bytes, got {}", kMaxLinkMessage, length);
  if (bytes_.size() - sizeof length < length) return {};
  used_ = sizeof length + length;
  return std::string_view(bytes_).substr(sizeof length, length);
}

}  // namespace foe
