// Finds the first of some stop strings in a text that comes in pieces, and ends the text there.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Returns the length of the longest end of `text` that is a beginning of `string`, but not all of it.
std::size_t overlap(std::string_view text, std::string_view string);

// The pieces that push() and finish() return are, joined, the text up to the first stop string (of two that end at the
// same byte, the longer one). Only what may be the beginning of a stop string is held back. One thread.
class StopStrings {
 public:
  // None of `strings` may be empty. With `include` the text ends after the stop string instead of before it.
  explicit StopStrings(std::vector<std::string> strings, bool include = false)
      : strings_(std::move(strings)), include_(include) {}

  // Takes the next piece of the text. Returns the part of the text so far that certainly belongs to the answer and has
  // not been returned yet.
  std::string push(std::string_view piece);
  // Takes the end of the text. Returns what was held back.
  std::string finish();
  // Whether a stop string has come. The text ends there, and push() and finish() return empty strings from then on.
  bool stopped() const { return !matched_.empty(); }
  // Returns the stop string that has come; empty if none has.
  const std::string& matched() const { return matched_; }

 private:
  std::vector<std::string> strings_;
  bool include_;
  std::string held_, matched_;
};

}  // namespace foe
