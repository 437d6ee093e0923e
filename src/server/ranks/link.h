// What the front end and rank 0 of the MPI job say to each other, over a Unix socket on one machine.
//
// A message is a 32-bit length, of what follows, and a payload: one byte for its kind, then its fields, numbers as they
// stand in memory (both ends are the same program on the same machine), vectors and strings behind a 32-bit count.
// Ready comes first and carries the version. Each end checks every length, every enumerator and every number that it
// reads: a message is input. All parse functions throw Error naming what was expected. What a request asks for is
// checked when the engine takes it: a request that is out of range is refused, and does not end the job.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/request.h"
#include "engine/engine_stats.h"

namespace foe {

constexpr std::uint32_t kLinkVersion = 9;
constexpr std::size_t kMaxLinkMessage = std::size_t{64} << 20;  // bytes of one payload

// Front end to rank 0.
struct Submit {
  Request request;
};
struct Abort {
  std::int64_t id = 0;
};
struct Stop {};  // end all ranks
using ToRanks = std::variant<Submit, Abort, Stop>;

// Rank 0 to front end.
struct Ready {
  std::uint32_t version = kLinkVersion;
  std::int32_t ranks = 0;
  std::int32_t threads = 0;    // of rank 0
  std::int32_t kv_tokens = 0;  // positions that the KV cache holds
  std::string plan;
  std::string model;    // a digest of the folder's contents
  std::string formats;  // formats_in_memory()
};
struct NewTokens {  // an event that reports a prompt's logprobs or a state comes alone: it may fill a message
  std::vector<TokenEvent> events;
};
struct Refused {  // a request that the engine cannot run
  std::int64_t id = 0;
  std::int32_t status = 400;  // of HTTP: whose fault it is
  std::string reason;
};
struct Alive {  // a promise: the next message comes within this many milliseconds
  std::int32_t silence_ms = 0;
};
struct Report {  // now and then
  EngineStats stats;
};
struct SchedulerReport {  // after each step, and before one in which other requests run than in the last
  SchedulerStats stats;
};
using FromRanks = std::variant<Ready, NewTokens, Refused, Alive, Report, SchedulerReport>;

void append_message(std::string& out, const ToRanks& message);
void append_message(std::string& out, const FromRanks& message);

ToRanks parse_to_ranks(std::string_view payload);
FromRanks parse_from_ranks(std::string_view payload);

// Cuts a stream of bytes into payloads.
class MessageBuffer {
 public:
  void append(std::string_view bytes) { bytes_.append(bytes); }
  // The next whole payload, valid until the next call of either function. Throws Error for a length past
  // kMaxLinkMessage.
  std::optional<std::string_view> next();

 private:
  std::string bytes_;
  std::size_t used_ = 0;  // bytes at the beginning that next() has handed out
};

}  // namespace foe
