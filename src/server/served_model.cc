#include "server/served_model.h"

#include <algorithm>

#include <spdlog/spdlog.h>

#include "base/sha256.h"
#include "server/api/generation_defaults.h"
#include "server/api/reasoning.h"
#include "server/api/tool_syntax.h"
#include "text/utf8.h"
#include "weights/config_json.h"

namespace foe {
namespace {

constexpr std::size_t kMaxChoices = 1024;  // of one HTTP request

}  // namespace

ReceiptModel receipt_model(const ServeOptions& options, const ServedModel& model, const ModelConfig& config) {
  return {.name = options.model_name,
          .weights = {},
          .config = sha256(model_config_json(config)),
          .tokenizer = model.tokenizer.digest(),
          .chat_template = template_sha256(model.chat_template),
          .engine = options.engine};
}

ServeOptions with_text_as_name(ServeOptions options) {
  std::string name;
  append_lossy_utf8(name, options.model_name, true);
  options.model_name = name;
  return options;
}

ServedModel served_model(const ServeOptions& options, const ModelConfig& config) {
  ServedModel model{.name = options.model_name,
                    .vocab_size = config.vocab_size,
                    .max_positions = config.max_position_embeddings,
                    .hidden_size = config.hidden_size,
                    .max_choices = std::min(options.max_queue, kMaxChoices),
                    .eos_ids = {},
                    .tokenizer = Tokenizer::of_model(options.model)};
  model.eos_ids = model.tokenizer.end_ids(config.eos_token_ids);
  for (const std::string& note : config_notes(options.model)) spdlog::warn("{}: {}", options.model, note);
  for (const std::string& note : model.tokenizer.notes(config.vocab_size)) spdlog::warn("{}: {}", options.model, note);
  model.open_objects = options.open_objects;
  model.max_prompt_logprobs = options.max_prompt_logprobs < 0 ? config.vocab_size : options.max_prompt_logprobs;
  model.defaults = load_generation_defaults(options.model, options.generation_config);
  if (!model.defaults.described.empty())
    spdlog::info("{}: requests that do not say otherwise have {}, as {} says (--generation-config none: not)",
                 options.model, model.defaults.described, model.defaults.path);
  if (options.wire != "f32")
    model.no_receipts = "with --wire " + options.wire + " answers depend on the number of ranks";
  if (options.allow_routes) model.routed_by_requests = config;
  model.chat_template = ChatTemplate::load(options.model, options.chat_template);
  model.tool_syntax = tool_syntax_for(options.tool_call_parser, model.chat_template.source(/*with_tools=*/true));
  if (model.tool_syntax)
    spdlog::info("{}: calls of tools are read as {} writes them (--tool-call-parser)", options.model,
                 model.tool_syntax->name);
  model.reasoning = reasoning_syntax_for(options.reasoning_parser, model.chat_template.source());
  if (model.reasoning)
    spdlog::info("{}: reasoning is read as {} writes it (--reasoning-parser)", options.model, model.reasoning->name);
  return model;
}

}  // namespace foe
