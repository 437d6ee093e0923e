// Ends a text in front of the first of some strings, while the text is still being written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Holds back only what may be the beginning of a stop string: the pieces that push() and finish() return are, joined,
// the text up to the first stop string (of two that end at the same byte, the longer one). One thread.
class StopStrings {
 public:
  // None of them empty.
  explicit StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {}

  // The part of the text so far that is certain to be in the answer and was not returned yet.
  std::string push(std::string_view piece);
  // What was held back, if the text ends here.
  std::string finish();
  // Whether a stop string has come: the text ends in front of it, and push() and finish() return nothing more.
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> strings_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace foe
