// What the requests of a benchmark carry besides the workload: fields of the body and headers, from the texts of flags.
#pragma once

#include <map>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace foe {

// What speaks to the server, with vLLM's names for `--backend`: "vllm" and "openai" send completions, "openai-chat"
// chats.
struct Endpoint {
  std::string backend, path;
  bool chat = false;
};
// Returns the endpoint that a backend and a path mean; what is empty follows from the other one. Throws Error if the
// backend is not one of these, or if the two do not fit.
Endpoint endpoint_of(const std::string& backend, const std::string& path);

// Reads "KEY=VALUE" as a line of a request's header, which ends in \r\n. Throws Error if that is no header, or one that
// the client sends itself.
std::string header_line(const std::string& pair);
// Whether one of these lines has this name, in lower case.
bool has_header(const std::string& lines, const std::string& name);

struct RequestFields {
  std::map<std::string, double> sampling = {{"temperature", 0}};
  std::string model, extra_body;  // extra_body: a JSON object, or empty
  std::optional<int> logprobs = {};
  bool ignore_eos = false;
};
// Returns the fields that all requests have, those of `extra_body` instead of others with their names. Throws Error if
// `extra_body` is not an object, or takes the place of what the workload and the measurement need.
nlohmann::json fields_json(const RequestFields& fields, bool chat);
// Whether these fields say how long an answer may be, so that the workload does not.
bool has_length(const nlohmann::json& fields);

}  // namespace foe
