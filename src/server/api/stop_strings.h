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
  // None of them empty. `include`: the text ends behind the stop string, not in front of it.
  explicit StopStrings(std::vector<std::string> strings, bool include = false)
      : strings_(std::move(strings)), include_(include) {}

  // The part of the text so far that is certain to be in the answer and was not returned yet.
  std::string push(std::string_view piece);
  // What was held back, if the text ends here.
  std::string finish();
  // Whether a stop string has come: the text ends there, and push() and finish() return nothing more.
  bool stopped() const { return !matched_.empty(); }
  // Which one; empty if none has come.
  const std::string& matched() const { return matched_; }

 private:
  std::vector<std::string> strings_;
  bool include_;
  std::string held_, matched_;
};

}  // namespace foe
