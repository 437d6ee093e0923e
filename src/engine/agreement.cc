#include "engine/agreement.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>
#include <string_view>

#include "base/check.h"
#include "base/error.h"

namespace foe {
namespace {

constexpr std::size_t kMostBytes = 1 << 14;  // the most bytes of a rank's facts
constexpr std::size_t kMostNamed = 5;        // the most differences that one message names
constexpr char kEnd = '\0';

using Values = std::map<std::string, std::string>;

std::string text_of(const std::vector<Fact>& facts) {
  std::string text;
  for (const Fact& fact : facts) text += (fact.may_differ ? "?" : "=") + fact.name + kEnd + fact.value + kEnd;
  FOE_CHECK(text.size() <= kMostBytes, "{} bytes of facts", text.size());
  return text;
}

// Reads the facts of a rank. The key of a fact is its kind followed by its name.
Values values_of(std::string_view text) {
  Values values;
  while (!text.empty()) {
    std::string parts[2];
    for (std::string& part : parts) {
      part = text.substr(0, text.find(kEnd));
      text.remove_prefix(std::min(text.size(), part.size() + 1));
    }
    values[parts[0]] = parts[1];
  }
  return values;
}

std::string differences(const Values& own, const Values& first, char kind) {
  const auto value = [](const Values& values, const std::string& key) {
    const auto found = values.find(key);
    return found == values.end() ? std::string("nothing") : found->second;
  };
  Values all = own;
  all.insert(first.begin(), first.end());
  std::string text;
  std::size_t count = 0;
  for (const auto& [key, unused] : all) {
    const std::string a = value(own, key), b = value(first, key);
    if (key.empty() || key[0] != kind || a == b || a.empty() || b.empty()) continue;
    if (++count <= kMostNamed)
      text += fmt::format("{}{} ({} instead of {})", text.empty() ? "" : ", ", key.substr(1), a, b);
  }
  return count > kMostNamed ? fmt::format("{} and {} more", text, count - kMostNamed) : text;
}

// Returns the facts of all ranks on rank 0.
std::vector<Values> gather(Communicator& comm, const std::string& mine) {
  const std::size_t ranks = comm.size();
  std::vector<std::size_t> send_bytes(ranks, 0), received_bytes(ranks);
  send_bytes[0] = mine.size();
  std::string all(comm.rank() == 0 ? ranks * kMostBytes : 0, '\0');
  comm.all_to_all(std::as_bytes(std::span(mine)), send_bytes, std::as_writable_bytes(std::span(all)), received_bytes);
  std::vector<Values> values;
  for (std::size_t r = 0, at = 0; r < ranks && comm.rank() == 0; at += received_bytes[r++])
    values.push_back(values_of(std::string_view(all).substr(at, received_bytes[r])));
  return values;
}

void broadcast(Communicator& comm, std::string& text) {
  std::vector<std::int32_t> message(text.begin(), text.end());
  comm.broadcast(message);
  text.assign(message.begin(), message.end());
}

}  // namespace

std::string require_agreement(Communicator& comm, const std::vector<Fact>& facts) {
  if (comm.size() == 1) return {};
  const CommCounters before = comm.counters();
  const std::vector<Values> all = gather(comm, text_of(facts));
  std::string refusal, note;
  for (std::size_t r = 1; r < all.size(); ++r) {
    const std::string wrong = differences(all[r], all[0], '='), other = differences(all[r], all[0], '?');
    if (refusal.empty() && !wrong.empty())
      refusal = fmt::format(
          "rank {} differs from rank 0 in {}: expected all ranks to have the same program, the same"
          " model and the same flags",
          r, wrong);
    if (note.empty() && !other.empty()) note = fmt::format("rank {} differs from rank 0 in {}", r, other);
  }
  broadcast(comm, refusal);
  comm.restore_counters(before);
  if (!refusal.empty()) throw Error(refusal);
  return note;
}

}  // namespace foe
