#include "route_flags.h"

#include <sstream>

#include "base/error.h"
#include "trace/route_file.h"
#include "trace/route_writer.h"

namespace foe {

Option add_record_flags(Command command, RecordFlags& flags, bool with) {
  const Option file = command.option("--route-trace", flags.file,
                                     "write which experts each token got, and their weights, to this safetensors file");
  command
      .option("--route-trace-bytes", flags.most_bytes,
              "most bytes of the record, which ends there while the run goes on; 0: any number")
      .number_in(0, 1e18)
      .show_default()
      .needs(file);
  if (!with) return file;
  command.option("--route-trace-with", flags.with, "record the router's scores, inputs, or both: scores,inputs")
      .parsed_by([](const std::string& text) {
        record_options({"-", text});
      })
      .needs(file);
  return file;
}

RecordOptions record_options(const RecordFlags& flags) {
  RecordOptions options{.routes = !flags.file.empty()};
  std::istringstream names(flags.with);
  for (std::string name; std::getline(names, name, ',');) {
    if (name != "scores" && name != "inputs")
      fail("expected scores, inputs or both, separated by a comma, got {}", name);
    (name == "scores" ? options.scores : options.inputs) = true;
  }
  return options;
}

void add_replay_flags(Command command, ReplayFlags& flags) {
  const Option file = command.option("--route", flags.file,
                                     "route by this file, which --route-trace has written, instead of the router");
  command.option("--route-sequence", flags.sequence, "which of the file's sequences; default: the only one")
      .needs(file);
}

std::shared_ptr<const SequenceRoute> load_route(const ReplayFlags& flags) {
  if (flags.file.empty()) return {};
  return std::make_shared<const SequenceRoute>(load_route(flags.file, flags.sequence));
}

void run_recorded(Engine& engine, const RecordFlags& flags, const std::function<void(Engine&)>& lead) {
  if (flags.file.empty()) return lead(engine);
  RouteRecord record(flags.file);
  {
    RouteWriter writer(flags.file, engine.route_form(), route_origin(engine.model()), flags.most_bytes);
    engine.record_to(&writer);
    lead(engine);
    engine.record_to(nullptr);
  }
  record.finish();
}

}  // namespace foe
