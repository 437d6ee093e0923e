// Writes the reply to a request in the form of its endpoint, as one body or as a stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/api/generation_request.h"
#include "server/api/generation_response.h"

namespace foe {

// One thread at a time.
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  // Each returns events of a stream: those before the first piece of a choice, those of a piece, and those at the end.
  virtual std::string begin(const ChoicePiece& choice, const AnswerUsage& usage) = 0;
  virtual std::string piece(const ChoicePiece& piece) = 0;
  virtual std::string end(const AnswerUsage& usage) = 0;
  // What ends a stream that fails.
  virtual std::string failure(int status, const std::string& message) = 0;
  // What keeps a silent connection open.
  virtual std::string silence() = 0;

  // Whether body() is made of all pieces that piece() has got, also of a reply that is no stream.
  virtual bool collects() const = 0;
  // Returns a whole reply.
  virtual std::string body(const std::vector<ChoicePiece>& choices, const AnswerUsage& usage) = 0;
};

std::unique_ptr<AnswerWriter> make_answer_writer(const AnswerHeader& header, const GenerationRequest& request);

}  // namespace foe
