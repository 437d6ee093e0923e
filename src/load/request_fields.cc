#include "load/request_fields.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "load/ascii.h"

namespace foe {
namespace {

constexpr std::string_view kCompletions = "/v1/completions", kChats = "/v1/chat/completions";
constexpr std::string_view kChatBackend = "openai-chat";
constexpr std::array<std::string_view, 3> kBackends = {"openai", "vllm", kChatBackend};
constexpr std::array<std::string_view, 6> kOwnHeaders = {"host",       "content-type",      "content-length",
                                                         "connection", "transfer-encoding", "expect"};

std::string trimmed(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return first == text.npos ? "" : text.substr(first, last - first + 1);
}

bool is_header_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string::npos;
  });
}

void refuse_extra(const nlohmann::json& extra) {
  for (const char* field : {"prompt", "messages"})
    if (extra.contains(field))
      fail("--extra-body: expected fields besides prompt and messages, which the workload gives, got {}", field);
  if (extra.contains("stream") && extra["stream"] != true)
    fail("--extra-body: expected \"stream\": true, as latencies are measured on a stream, got {}",
         excerpt(extra["stream"]));
}

}  // namespace

Endpoint endpoint_of(const std::string& backend, const std::string& path) {
  if (!backend.empty() && std::ranges::find(kBackends, backend) == kBackends.end())
    fail("--backend: expected openai or vllm (completions), or openai-chat (chats), got '{}'", backend);
  Endpoint endpoint{backend, path};
  endpoint.chat = path.empty() ? backend == kChatBackend : path.ends_with("/chat/completions");
  if (path.empty()) endpoint.path = endpoint.chat ? kChats : kCompletions;
  if (backend.empty()) endpoint.backend = endpoint.chat ? kChatBackend : kBackends.front();
  if (endpoint.chat != (endpoint.backend == kChatBackend))
    fail("--endpoint: expected one for {} with --backend {}, such as {}, got '{}'",
         endpoint.chat ? "completions" : "chats", backend, endpoint.chat ? kCompletions : kChats, path);
  return endpoint;
}

// The messages do not repeat values, which may be secret.
std::string header_line(const std::string& pair) {
  const std::size_t equals = pair.find('=');
  if (equals == pair.npos) fail("expected KEY=VALUE, got a text without '='");
  const std::string name = trimmed(pair.substr(0, equals)), value = trimmed(pair.substr(equals + 1));
  if (!is_header_name(name))
    fail("expected KEY=VALUE with the name of a header, got the name {}", excerpt(nlohmann::json(name)));
  if (std::ranges::any_of(value, [](unsigned char c) { return (c < ' ' && c != '\t') || c == 127; }))
    fail("expected KEY=VALUE with a value on one line, got control characters in that of {}", name);
  if (std::ranges::find(kOwnHeaders, lower_ascii(name)) != kOwnHeaders.end())
    fail("expected a header that the client does not send itself, got {}", name);
  return name + ": " + value + "\r\n";
}

bool has_header(const std::string& lines, const std::string& name) {
  return ("\n" + lower_ascii(lines)).find("\n" + name + ":") != std::string::npos;
}

nlohmann::json fields_json(const RequestFields& fields, bool chat) {
  nlohmann::json out = fields.sampling;
  if (const auto k = fields.sampling.find("top_k"); k != fields.sampling.end() && k->second == std::floor(k->second))
    out["top_k"] = static_cast<std::int64_t>(k->second);
  out["model"] = fields.model;
  out["stream"] = true;
  out["stream_options"] = {{"include_usage", true}};
  if (fields.ignore_eos) out["ignore_eos"] = true;
  if (fields.logprobs && chat) {
    out["logprobs"] = true;
    out["top_logprobs"] = *fields.logprobs;
  } else if (fields.logprobs) {
    out["logprobs"] = *fields.logprobs;
  }
  if (!fields.extra_body.empty()) {
    const nlohmann::json extra = parse_strict_json(fields.extra_body, "--extra-body");
    if (!extra.is_object()) fail("--extra-body: expected a JSON object, got {}", excerpt(extra));
    refuse_extra(extra);
    out.update(extra);
  }
  return out;
}

bool has_length(const nlohmann::json& fields) {
  return fields.contains("max_tokens") || fields.contains("max_completion_tokens");
}

}  // namespace foe
