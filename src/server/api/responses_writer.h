// Writes the replies to POST /v1/responses, in the form of OpenAI's Responses API.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "server/api/block_writer.h"

namespace foe {

class ResponsesWriter : public BlockWriter {
 public:
  // `repeated` is what GenerationRequest::repeated is.
  ResponsesWriter(AnswerHeader header, std::string repeated, bool stream)
      : BlockWriter(stream), header_(std::move(header)), repeated_(std::move(repeated)) {}

  std::string begin(const ChoicePiece& choice, const AnswerUsage& usage) override;
  std::string end(const AnswerUsage& usage) override;
  std::string failure(int status, const std::string& message) override;
  std::string silence() override { return comment(); }
  std::string body(const std::vector<ChoicePiece>& choices, const AnswerUsage& usage) override;

 private:
  std::string block_begins(const AnswerBlock& block) override;
  std::string block_grows(const AnswerBlock& block, const std::string& text,
                          const std::vector<TokenReport>& logprobs) override;
  std::string block_ends(const AnswerBlock& block) override;

  std::string block_id(const AnswerBlock& block) const;
  nlohmann::ordered_json item_of(const AnswerBlock& block, const char* status) const;
  std::string response(const char* status, const nlohmann::ordered_json& usage,
                       const nlohmann::ordered_json& error) const;
  std::string response_event(const char* type, const std::string& response);
  std::string item_event(const char* type, const AnswerBlock& block, nlohmann::ordered_json members);

  AnswerHeader header_;
  std::string repeated_;
  std::int64_t events_ = 0;  // so far
};

}  // namespace foe
