// foe serve: runs the HTTP server, which launches and supervises its MPI job.
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "commands.h"
#include "common.h"
#include "engine/processors.h"
#include "route_flags.h"
#include "server/api/reasoning.h"
#include "server/api/tool_syntax.h"
#include "server/front_end.h"
#include "trace/route_writer.h"
#include "weights/config_json.h"

namespace foe {
namespace {

struct ServeFlags {
  ModelFlags model;
  RecordFlags record;
  ServeOptions serve;
  std::string hosts;
  int ranks = 0;
  int max_sequences = 32;
  int kv_tokens = 0;
  int draft_tokens = 0;
  double hang_timeout_s = 10;
};

std::vector<std::string> worker_args(const ServeFlags& flags) {
  std::vector<std::string> args{std::filesystem::absolute(flags.model.model).string()};
  const auto add = [&](const char* name, const std::string& value) { args.insert(args.end(), {name, value}); };
  const PlanFlags& plan = flags.model.plan;
  if (!plan.name.empty()) add("--plan", plan.name);
  if (plan.stages > 0) add("--stages", std::to_string(plan.stages));
  if (!plan.stage_layers.empty()) add("--stage-layers", fmt::format("{}", fmt::join(plan.stage_layers, ",")));
  add("--ep-attention", plan.ep_attention);
  add("--dispatch", flags.model.dispatch);
  add("--wire", flags.model.wire);
  if (flags.model.overlap) args.push_back("--overlap");
  if (!flags.model.dtype.empty()) add("--dtype", flags.model.dtype);
  if (!flags.model.quantize.empty()) add("--quantize", flags.model.quantize);
  add("--kv-dtype", flags.model.kv_dtype);
  add("--attention", flags.model.attention);
  if (flags.model.threads > 0) add("--threads", std::to_string(flags.model.threads));
  if (flags.model.pin) args.push_back("--pin");
  add("--chunk", std::to_string(flags.model.chunk));
  add("--timeout", fmt::format("{}", flags.model.timeout_s));
  add("--start-timeout", fmt::format("{}", flags.model.start_timeout_s));
  add("--max-sequences", std::to_string(flags.max_sequences));
  if (flags.kv_tokens > 0) add("--kv-tokens", std::to_string(flags.kv_tokens));
  if (flags.draft_tokens > 0) add("--draft-tokens", std::to_string(flags.draft_tokens));
  add("--hang-timeout", fmt::format("{}", flags.hang_timeout_s));
  if (!flags.record.file.empty()) {
    add("--route-trace", std::filesystem::absolute(flags.record.file).string());
    add("--route-trace-bytes", std::to_string(flags.record.most_bytes));
    if (!flags.record.with.empty()) add("--route-trace-with", flags.record.with);
  }
  return args;
}

// Of a GGUF file, without the ending.
std::string model_name_of(const std::string& path) {
  const std::filesystem::path name = std::filesystem::weakly_canonical(path).filename();
  return (name.extension() == ".gguf" ? name.stem() : name).string();
}

int default_ranks(const LaunchOptions& launch, const std::function<bool(int)>& enough_ranks) {
  if (!launch.hosts.empty()) return slots_of(launch.hosts);
  const auto nodes = static_cast<int>(usable_processors().size());
  return enough_ranks(nodes) ? nodes : 1;
}

// The ranks append to the record, whichever job they are of. It is finished here, when they have ended, because they
// may be killed.
void serve_recorded(const ServeFlags& flags) {
  if (flags.record.file.empty()) return serve(flags.serve);
  RouteRecord record(flags.record.file);
  try {
    serve(flags.serve);
  } catch (...) {
    record.finish();
    throw;
  }
  record.finish();
}

void run_serve(ServeFlags& flags) {
  require_one_process("serve");
  LaunchOptions& launch = flags.serve.supervisor.launch;
  // The parser treats an empty variable as not set. But if it is set, a key is meant, so the empty key is refused
  // later.
  std::vector<std::string>& keys = flags.serve.access.api_keys;
  if (const char* key = std::getenv("FOE_API_KEY"); keys.empty() && key && !*key) keys.emplace_back();
  check_options(flags.serve.access);
  if (!flags.hosts.empty()) launch.hosts = parse_hosts(flags.hosts);
  attention_of(flags.model);  // throws before anything is started
  launch.worker_args = worker_args(flags);
  const ModelConfig config = load_model_config(flags.model.model);
  const PlanChoice plan = plan_of(flags.model.plan, config);
  const auto enough_ranks = [config, plan](int ranks) {
    try {
      make_placement(config, plan, ranks);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  flags.serve.supervisor.enough_ranks = enough_ranks;
  flags.serve.supervisor.start_timeout_s = flags.model.start_timeout_s;
  launch.ranks = flags.ranks > 0 ? flags.ranks : default_ranks(launch, enough_ranks);
  check_overlap(make_placement(config, plan, launch.ranks), flags.model.overlap);  // throws before anything is started
  flags.serve.model = flags.model.model;
  flags.serve.version = std::string_view(FOE_VERSION).substr(std::string_view("foe ").size());
  flags.serve.kv_dtype = flags.model.kv_dtype;
  flags.serve.wire = flags.model.wire;
  flags.serve.engine = {flags.model.dtype, flags.model.quantize, "", flags.model.kv_dtype, flags.model.attention};
  if (flags.serve.model_name.empty()) flags.serve.model_name = model_name_of(flags.model.model);
  serve_recorded(flags);
}

void add_limits(Command command, ServeFlags& flags) {
  const auto add = [&](const char* name, auto& value, const char* help, int low, int high) {
    command.option(name, value, help).range(low, high).show_default();
  };
  const auto add_seconds = [&](const char* name, double& value, const char* help, double low, double high) {
    command.option(name, value, help).number_in(low, high).show_default();
  };
  add("--max-sequences", flags.max_sequences,
      "most sequences in one batch, one for each choice of a request; others wait", 1, 4096);
  add_kv_tokens(command, flags.kv_tokens);
  add("--max-queue", flags.serve.max_queue, "most choices in flight, waiting ones included; further requests get a 503",
      1, 1 << 20);
  add("--max-prompt-logprobs", flags.serve.max_prompt_logprobs,
      "most tokens that prompt_logprobs may have for each place of a prompt; -1: all of the vocabulary, for which a"
      " request then may say -1, and an answer takes some 70 bytes for each",
      -1, 1 << 20);
  add_seconds("--max-answer-seconds", flags.serve.answer_seconds,
              "seconds after which an answer that is not finished ends with a 504; 0: no limit", 0, 1e7);
  add("--max-body", flags.serve.http.body_bytes, "most bytes in the body of a request; a longer one gets a 413", 1,
      1 << 30);
  add("--max-connections", flags.serve.http.connections, "most HTTP connections at a time; further ones get a 503", 1,
      1 << 16);
  add_seconds("--drain-seconds", flags.serve.drain_s,
              "seconds that requests in flight have to finish after SIGTERM or Ctrl-C", 0, 86400);
  add("--restarts", flags.serve.supervisor.restarts,
      "most restarts of dead ranks within --restart-window; after one more the server exits", 0, 1000);
  add_seconds("--restart-window", flags.serve.supervisor.restart_window_s, "seconds over which --restarts are counted",
              1, 1e7);
  add_seconds("--host-patience", flags.serve.supervisor.host_patience_s,
              "seconds to wait, at a restart, for a machine of --hosts that does not answer, before it is left out", 1,
              86400);
  add_seconds("--hang-timeout", flags.hang_timeout_s,
              "seconds of silence after which the ranks count as hung and are restarted; long steps get more", 0.1,
              86400);
}

}  // namespace

void add_serve_command(Command app) {
  auto flags = std::make_shared<ServeFlags>();
  Command command =
      app.subcommand("serve", "Serve a model over OpenAI's HTTP API, and restart its ranks when they die");
  add_model_flags(command, flags->model);
  command
      .option("--ranks", flags->ranks,
              "number of ranks, the processes that share the model; default: the sum over --hosts, otherwise one for"
              " each NUMA node if the model can be shared by so many, otherwise one")
      .range(1, 4096);
  command.option(
      "--hosts", flags->hosts,
      "machines and how many ranks run on each, this machine first, as in this:2,other:2; default: only this machine");
  command.option("--host", flags->serve.host, "IP address to listen on; 0.0.0.0: on all of this machine's")
      .show_default();
  command.option("--port", flags->serve.port, "TCP port to listen on; 0: any free one, which the log names")
      .range(0, 65535)
      .show_default();
  command.option("--served-model-name", flags->serve.model_name,
                 "name of the model in the API; default: the folder's name");
  command.option("--chat-template", flags->serve.chat_template,
                 "file with the Jinja template that turns a chat into a prompt; default: the model folder's own");
  command
      .option(
          "--tool-call-parser", flags->serve.tool_call_parser,
          fmt::format("how the model writes calls of tools that it decides on, one of {}; auto: as its chat template"
                      " shows; none: calls are text",
                      fmt::join(tool_syntax_names(), ", ")))
      .parsed_by([](const std::string& name) { tool_syntax_for(name, ""); })
      .show_default();
  command
      .option("--reasoning-parser", flags->serve.reasoning_parser,
              fmt::format("how the model writes its reasoning, one of {}; auto: as its chat template shows; none:"
                          " reasoning is text",
                          fmt::join(reasoning_syntax_names(), ", ")))
      .parsed_by([](const std::string& name) { reasoning_syntax_for(name, ""); })
      .show_default();
  command
      .option("--generation-config", flags->serve.generation_config,
              "where requests get what they do not say of sampling: auto: generation_config.json of the model's folder;"
              " none: they are greedy; or a folder with such a file")
      .show_default();
  command
      .option(
          "--api-key", flags->serve.access.api_keys,
          "key that requests to /v1 must have, as `Authorization: Bearer KEY`; may be given several times; default: no"
          " key is needed")
      .env("FOE_API_KEY")
      .may_be_empty()  // which has an error message of its own
      .repeats();
  command.flag("--open-objects", flags->serve.open_objects,
               "objects of a JSON schema may have properties that it does not list, unless it says"
               " additionalProperties: false; otherwise they may not, unless it says true");
  command.flag("--allow-routes", flags->serve.allow_routes,
               "requests may say in foe_route which experts their tokens get");
  add_draft_tokens(command, flags->draft_tokens).excludes(add_record_flags(command, flags->record));
  command
      .option("--cors-origin", flags->serve.access.cors_origins,
              "origin whose web pages may use the API from a browser (*: any origin); may be given several times")
      .repeats();
  add_limits(command, *flags);
  runs_on_model(command, flags->model.model, [flags] { run_serve(*flags); });
}

}  // namespace foe
