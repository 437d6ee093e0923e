// Chooses the tokens of an output that is known already, from one pass over prompt and output.
#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "core/model_config.h"
#include "engine/engine.h"
#include "model/routes.h"

namespace foe {
namespace {

void check_room(const Request& request, int context, int kv_tokens) {
  const std::size_t positions = request.prompt.size() + request.output.size();
  if (request.prompt.empty()) fail("prompt: expected at least one token, got none");
  if (positions > static_cast<std::size_t>(context))
    fail("expected a prompt and an output of at most {} tokens together, the model's context, got {}", context,
         positions);
  if (positions > static_cast<std::size_t>(kv_tokens))
    fail("expected a prompt and an output of at most {} tokens together, the KV cache's, got {}", kv_tokens, positions);
}

}  // namespace

// A guess that was right is run the same way (sched/draft.h): a row of the output is looked at only if the row before
// it has chosen the token that it goes on from. So sampling sees what it saw when the output was made.
Engine::Replayed Engine::replay(const Request& request) {
  FOE_CHECK(idle(), "a replay beside requests");
  const ModelConfig& config = model_.config;
  validate(request, config.vocab_size);
  check_room(request, config.max_position_embeddings, kv_.blocks() * kKvBlock);
  if (request.output.empty()) return {};
  if (request.route) check_route(*request.route, config, model_.identity, request.prompt.tokens());
  sampler_.admit(request);
  std::vector<std::int32_t> text = request.prompt.tokens();
  text.insert(text.end(), request.output.begin(), request.output.end());
  std::vector<std::int32_t> blocks((text.size() + kKvBlock - 1) / kKvBlock);
  std::iota(blocks.begin(), blocks.end(), 0);
  const int alike = alike_positions(config), prompt = static_cast<int>(request.prompt.size());
  const std::size_t first = request.prompt.size() - 1, end = text.size() - 1;  // the rows that choose the output
  Replayed result;
  for (std::size_t at = 0; at < end && !result.chosen;) {
    const bool chooses = at >= first;
    const std::size_t count = chooses
                                  ? std::min<std::size_t>({end - at, static_cast<std::size_t>(activations_.max_tokens),
                                                           static_cast<std::size_t>(activations_.max_sampled)})
                                  : std::min<std::size_t>(first - at, activations_.max_tokens);
    batch_ = Batch();
    batch_.add_sequence(std::span(text).subspan(at, count), static_cast<int>(at),
                        std::span(blocks).first((at + count + kKvBlock - 1) / kKvBlock),
                        chooses ? Batch::Sample::kAll : Batch::Sample::kNone, 0,
                        alike > 0 && prompt > alike ? prompt : 0);
    if (request.route) batch_.route_last_sequence(request.route->route);
    std::vector<SampledRow> rows;
    for (std::size_t i = 0; chooses && i < count; ++i) rows.push_back({&request, std::span(text).first(at + i + 1)});
    batch_.candidates = candidates_wanted(rows);
    begin_run(batch_);
    const Logits logits = end_run(batch_);
    const std::vector<SampledToken> tokens = sampler_.sample(rows, logits);
    if (!sampler_.not_finite().empty()) {
      sampler_.forget(request.id);
      fail(kNotFinite);
    }
    for (std::size_t i = 0; i < tokens.size() && !result.chosen; ++i)
      if (tokens[i].token == text[at + i + 1])
        ++result.equal;
      else
        result.chosen = tokens[i].token;
    at += count;
  }
  sampler_.forget(request.id);
  return result;
}

}  // namespace foe
