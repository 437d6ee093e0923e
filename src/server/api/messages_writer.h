// Writes the replies to POST /v1/messages, in the form of Anthropic's API.
#pragma once

#include <string>
#include <vector>

#include "server/api/block_writer.h"

namespace foe {

class MessagesWriter : public BlockWriter {
 public:
  MessagesWriter(AnswerHeader header, bool stream) : BlockWriter(stream), header_(std::move(header)) {}

  std::string begin(const ChoicePiece& choice, const AnswerUsage& usage) override;
  std::string end(const AnswerUsage& usage) override;
  std::string failure(int status, const std::string& message) override;
  std::string silence() override;
  std::string body(const std::vector<ChoicePiece>& choices, const AnswerUsage& usage) override;

 private:
  std::string block_begins(const AnswerBlock& block) override;
  std::string block_grows(const AnswerBlock& block, const std::string& text,
                          const std::vector<TokenReport>& logprobs) override;
  std::string block_ends(const AnswerBlock& block) override;

  // Clients send reasoning back with its signature, some of them only if there is one.
  const std::string& signature() const { return header_.id; }

  AnswerHeader header_;
};

}  // namespace foe
