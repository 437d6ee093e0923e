// The flags of commands that record routes, or route by a record (docs/routes.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/route.h"
#include "engine/engine.h"
#include "flags.h"

namespace foe {

struct RecordFlags {
  std::string file;  // empty: nothing is recorded
  std::string with;  // what is recorded besides: "scores", "inputs" or both
  std::int64_t most_bytes = std::int64_t{1} << 30;
};

// Adds --route-trace, which is returned, --route-trace-bytes and, if `with`, --route-trace-with.
Option add_record_flags(Command command, RecordFlags& flags, bool with = true);
// Returns what the engine has to record. Throws Error for an unknown name in `with`.
RecordOptions record_options(const RecordFlags& flags);

struct ReplayFlags {
  std::string file;  // empty: the router decides
  std::optional<std::int64_t> sequence;
};

// Adds --route and --route-sequence.
void add_replay_flags(Command command, ReplayFlags& flags);
// Returns the route that is asked for; null if there is none.
std::shared_ptr<const SequenceRoute> load_route(const ReplayFlags& flags);

// Runs lead(engine) on rank 0 and records what it does, if that is asked for. If it throws, what was recorded until
// then stays in FILE.partial.
void run_recorded(Engine& engine, const RecordFlags& flags, const std::function<void(Engine&)>& lead);

}  // namespace foe
