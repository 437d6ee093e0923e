// Writes answers of APIs that have them as a list of blocks: reasoning, texts, and calls of tools.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "server/api/answer_writer.h"

namespace foe {

struct AnswerBlock {
  enum class Kind { kReasoning, kText, kCall };
  Kind kind = Kind::kText;
  std::size_t index = 0;                   // which block of the answer it is
  std::string text = {};                   // of a call: its arguments
  std::vector<TokenReport> logprobs = {};  // of a text, if they were asked for
  std::string id = {}, name = {};          // of a call
  bool complete = false;
};

// Blocks are in the order in which they come, and a whole answer has those that the stream would have had.
class BlockWriter : public AnswerWriter {
 public:
  explicit BlockWriter(bool stream) : stream_(stream) {}

  std::string piece(const ChoicePiece& piece) final;
  bool collects() const final { return true; }

 protected:
  // Returns an event with the data's type as its name, and with a receipt, if there is one.
  static std::string event(const nlohmann::ordered_json& data, const std::string& receipt = "");

  // Each returns events.
  virtual std::string block_begins(const AnswerBlock& block) = 0;
  virtual std::string block_grows(const AnswerBlock& block, const std::string& text,
                                  const std::vector<TokenReport>& logprobs) = 0;
  virtual std::string block_ends(const AnswerBlock& block) = 0;

  const std::vector<AnswerBlock>& blocks() const { return blocks_; }
  // The piece that the answer ended with, without its text.
  const ChoicePiece& last() const { return last_; }

 private:
  std::string begin_block(AnswerBlock block);
  std::string add(AnswerBlock::Kind kind, const std::string& text, const std::vector<TokenReport>& logprobs);
  std::string grow(const std::string& text, const std::vector<TokenReport>& logprobs);
  std::string end_block(bool complete);

  bool stream_;
  std::vector<AnswerBlock> blocks_;
  bool in_block_ = false;
  ChoicePiece last_;
};

}  // namespace foe
