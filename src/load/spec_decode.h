// What a server's metrics say of tokens that were guessed (speculative decoding), as foe's and vLLM's do.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace foe {

struct SpecDecodeCounts {
  double drafts = 0;                    // how often tokens were guessed
  double draft_tokens = 0;              // tokens that were guessed
  double accepted_tokens = 0;           // those of them that were right
  std::map<int, double> by_position{};  // those by their place in the guess, if the server counts that
};

// Reads counters in Prometheus' text format, under any prefix. What has labels is summed. Returns nothing if there are
// none of them. The text may be any bytes.
std::optional<SpecDecodeCounts> read_spec_decode(std::string_view metrics);

// Returns what was counted between two readings; nothing if one is missing, or if no token was guessed in between.
std::optional<SpecDecodeCounts> counted_between(const std::optional<SpecDecodeCounts>& before,
                                                const std::optional<SpecDecodeCounts>& after);

// Returns the keys of the result of `vllm bench serve`: rates of acceptance are in percent of the guessed tokens, but
// those by position are shares of the guesses; the length counts the token that each guess comes with.
nlohmann::json to_json(const SpecDecodeCounts& counts);
void print_spec_decode(std::FILE* out, const SpecDecodeCounts& counts);

}  // namespace foe
