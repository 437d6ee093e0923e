#include "server/api/answer_writer.h"

#include <utility>

#include "server/api/messages_writer.h"
#include "server/api/responses_writer.h"

namespace foe {
namespace {

// Completions and chats: each piece is an event. A receipt goes into the last one.
class ChunkWriter : public AnswerWriter {
 public:
  ChunkWriter(AnswerHeader header, bool include_usage) : header_(std::move(header)), include_usage_(include_usage) {}

  std::string begin(const ChoicePiece& choice, const AnswerUsage&) override {
    return header_.api == Api::kChat ? role_chunk(header_, choice, include_usage_) : "";
  }
  std::string piece(const ChoicePiece& piece) override {
    if (!include_usage_ || piece.receipt.empty()) return answer_chunk(header_, piece, include_usage_);
    ChoicePiece without = piece;
    receipt_ = std::exchange(without.receipt, "");
    return answer_chunk(header_, without, include_usage_);
  }
  std::string end(const AnswerUsage& usage) override {
    return (include_usage_ ? usage_chunk(header_, usage, receipt_) : "") + done_chunk();
  }
  std::string failure(int status, const std::string& message) override {
    return error_chunk(status, message) + done_chunk();
  }
  std::string silence() override { return comment(); }

  bool collects() const override { return false; }
  std::string body(const std::vector<ChoicePiece>& choices, const AnswerUsage& usage) override {
    return answer_body(header_, choices, usage);
  }

 private:
  AnswerHeader header_;
  bool include_usage_;
  std::string receipt_;  // for the chunk with the usage
};

}  // namespace

std::unique_ptr<AnswerWriter> make_answer_writer(const AnswerHeader& header, const GenerationRequest& request) {
  if (header.api == Api::kMessages) return std::make_unique<MessagesWriter>(header, request.stream);
  if (header.api == Api::kResponses) return std::make_unique<ResponsesWriter>(header, request.repeated, request.stream);
  return std::make_unique<ChunkWriter>(header, request.include_usage);
}

}  // namespace foe
