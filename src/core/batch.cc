#include "core/batch.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "base/check.h"
#include "base/error.h"

namespace foe {
namespace {

constexpr int kMostRouted = 1 << 24;  // entries of one token in all layers

// The arrays of a batch in the order of the message.
constexpr std::vector<std::int32_t> Batch::*kArrays[] = {
    &Batch::tokens,      &Batch::positions,    &Batch::sequence_begin, &Batch::sequence_owner, &Batch::block_table,
    &Batch::table_begin, &Batch::sampled_rows, &Batch::candidates,     &Batch::route_rows};

void append(std::vector<std::int32_t>& message, const std::vector<std::int32_t>& values) {
  message.push_back(static_cast<std::int32_t>(values.size()));
  message.insert(message.end(), values.begin(), values.end());
}

std::vector<std::int32_t> take(std::span<const std::int32_t>& message) {
  if (message.empty()) fail("batch message: expected a length, got the end");
  const std::int32_t size = message.front();
  message = message.subspan(1);
  if (size < 0 || static_cast<std::size_t>(size) > message.size())
    fail("batch message: expected a length of at most {}, got {}", message.size(), size);
  std::vector<std::int32_t> values(message.begin(), message.begin() + size);
  message = message.subspan(size);
  return values;
}

void append(std::vector<std::int32_t>& message, const Route& route) {
  message.insert(message.end(), {route.layers, route.entries});
  append(message, route.experts_TLK);
  std::vector<std::int32_t> bits(route.weights_TLK.size());
  if (!bits.empty()) std::memcpy(bits.data(), route.weights_TLK.data(), bits.size() * sizeof(float));
  append(message, bits);
}

Route take_route(std::span<const std::int32_t>& message) {
  if (message.size() < 2) fail("batch message: expected the form of a route, got {} words", message.size());
  Route route{.layers = message[0], .entries = message[1], .experts_TLK = {}, .weights_TLK = {}};
  message = message.subspan(2);
  if (route.layers < 1 || route.entries < 1 || route.layers > kMostRouted / route.entries)
    fail("batch message: expected a route of at most {} entries of a token, got {} layers of {}", kMostRouted,
         route.layers, route.entries);
  route.experts_TLK = take(message);
  const std::vector<std::int32_t> bits = take(message);
  if (bits.size() != route.experts_TLK.size() || bits.size() % (route.layers * route.entries) != 0)
    fail("batch message: expected weights for {} layers of {} experts each, got {} weights for {}", route.layers,
         route.entries, bits.size(), route.experts_TLK.size());
  route.weights_TLK.resize(bits.size());
  if (!bits.empty()) std::memcpy(route.weights_TLK.data(), bits.data(), bits.size() * sizeof(float));
  return route;
}

Range take_layers(std::span<const std::int32_t>& message, int num_layers) {
  if (message.size() < 2) fail("batch message: expected a range of layers, got {} words", message.size());
  const Range layers{message[0], message[1]};
  if (layers.begin < 0 || layers.begin >= num_layers || layers.end <= layers.begin)
    fail("batch message: expected layers in [0, {}), got [{}, {})", num_layers, layers.begin, layers.end);
  message = message.subspan(2);
  return layers;
}

// Throws Error unless the offsets are 0 = o_0 <= o_1 <= ... = total.
void check_offsets(const std::vector<std::int32_t>& offsets, std::size_t total, const char* name) {
  if (offsets.empty() || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
      static_cast<std::size_t>(offsets.back()) != total)
    fail("batch message: expected {} to ascend from 0 to {}", name, total);
}

void check_range(const std::vector<std::int32_t>& values, int limit, const char* name) {
  for (const std::int32_t v : values)
    if (v < 0 || v >= limit) fail("batch message: expected {} in [0, {}), got {}", name, limit, v);
}

// Throws Error if above(a, b) holds for a value a and the next one b.
template <typename Above>
void check_ascent(const std::vector<std::int32_t>& values, Above above, const char* name) {
  if (const auto at = std::adjacent_find(values.begin(), values.end(), above); at != values.end())
    fail("batch message: expected {} to ascend, got {} after {}", name, at[1], at[0]);
}

// Returns values[begin, end), each minus `base`.
std::vector<std::int32_t> slice(const std::vector<std::int32_t>& values, std::ptrdiff_t begin, std::ptrdiff_t end,
                                std::int32_t base = 0) {
  std::vector<std::int32_t> part(values.begin() + begin, values.begin() + end);
  for (std::int32_t& v : part) v -= base;
  return part;
}

// For the tokens [begin, end), which are the last ones of `part`: appends which of them are sampled, and what they are
// routed by.
void append_rows(const Batch& batch, int begin, int end, Batch& part) {
  const auto add = [](std::vector<std::int32_t>& to, const std::vector<std::int32_t>& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  const int first = part.num_tokens() - (end - begin);
  if (!batch.route_rows.empty()) {
    part.route_rows.resize(first);
    add(part.route_rows, slice(batch.route_rows, begin, end));
    if (part.route.layers == 0) part.route = batch.route;
  }
  const auto& rows = batch.sampled_rows;
  const auto row = std::lower_bound(rows.begin(), rows.end(), begin), row_end = std::lower_bound(row, rows.end(), end);
  add(part.sampled_rows, slice(rows, row - rows.begin(), row_end - rows.begin(), begin - first));
  add(part.candidates, slice(batch.candidates, row - rows.begin(), row_end - rows.begin()));
}

}  // namespace

void Batch::add_sequence(std::span<const std::int32_t> sequence_tokens, int first_position,
                         std::span<const std::int32_t> blocks, Sample sample, int owner, int prompt_length) {
  FOE_CHECK(owner >= (sequence_owner.empty() ? 0 : sequence_owner.back()), "owner {} after {}", owner,
            sequence_owner.empty() ? 0 : sequence_owner.back());
  const int first_row = num_tokens();
  tokens.insert(tokens.end(), sequence_tokens.begin(), sequence_tokens.end());
  for (std::size_t i = 0; i < sequence_tokens.size(); ++i) positions.push_back(first_position + static_cast<int>(i));
  sequence_begin.push_back(num_tokens());
  sequence_owner.push_back(owner);
  block_table.insert(block_table.end(), blocks.begin(), blocks.end());
  table_begin.push_back(static_cast<std::int32_t>(block_table.size()));
  if (!route_rows.empty()) route_rows.resize(num_tokens(), -1);
  if (prompt_length > 0 || !prompt_lengths.empty()) {
    prompt_lengths.resize(num_sequences() - 1);
    prompt_lengths.push_back(prompt_length);
  }
  if (sample == Sample::kNone) return;
  for (int row = sample == Sample::kAll ? first_row : num_tokens() - 1; row < num_tokens(); ++row)
    sampled_rows.push_back(row);
  candidates.resize(sampled_rows.size());
}

void Batch::route_last_sequence(const Route& by) {
  FOE_CHECK(route.layers == 0 || (route.layers == by.layers && route.entries == by.entries), "{} x {} beside {} x {}",
            by.layers, by.entries, route.layers, route.entries);
  route.layers = by.layers;
  route.entries = by.entries;
  const int first_row = sequence_begin[num_sequences() - 1], first = positions[first_row];
  const int end = std::min(by.tokens(), first + num_tokens() - first_row);
  route_rows.resize(num_tokens(), -1);
  if (first >= end) return;
  for (int i = 0, row = route.tokens(); i < end - first; ++i) route_rows[first_row + i] = row + i;
  const std::ptrdiff_t size = std::ptrdiff_t{by.layers} * by.entries;
  route.experts_TLK.insert(route.experts_TLK.end(), by.experts_TLK.begin() + first * size,
                           by.experts_TLK.begin() + end * size);
  route.weights_TLK.insert(route.weights_TLK.end(), by.weights_TLK.begin() + first * size,
                           by.weights_TLK.begin() + end * size);
}

Batch part_of(const Batch& batch, int owner) {
  const auto& owners = batch.sequence_owner;
  const auto [first, last] = std::equal_range(owners.begin(), owners.end(), owner);
  const auto s = first - owners.begin(), s_end = last - owners.begin();
  const std::int32_t t = batch.sequence_begin[s], t_end = batch.sequence_begin[s_end];
  const std::int32_t b = batch.table_begin[s], b_end = batch.table_begin[s_end];

  Batch part;
  part.layers = batch.layers;
  part.tokens = slice(batch.tokens, t, t_end);
  part.positions = slice(batch.positions, t, t_end);
  part.sequence_begin = slice(batch.sequence_begin, s, s_end + 1, t);
  part.sequence_owner = slice(owners, s, s_end);
  if (!batch.prompt_lengths.empty()) part.prompt_lengths = slice(batch.prompt_lengths, s, s_end);
  part.block_table = slice(batch.block_table, b, b_end);
  part.table_begin = slice(batch.table_begin, s, s_end + 1, b);
  append_rows(batch, t, t_end, part);
  return part;
}

Batch pieces_of(const Batch& batch, std::span<const Piece> pieces) {
  Batch part;
  part.layers = batch.layers;
  for (const Piece& piece : pieces) {
    const auto next = std::upper_bound(batch.sequence_begin.begin(), batch.sequence_begin.end(), piece.begin);
    const auto s = static_cast<int>(next - batch.sequence_begin.begin()) - 1;
    FOE_CHECK(piece.begin < piece.end && piece.end <= *next, "rows [{}, {}) of a sequence that ends at {}", piece.begin,
              piece.end, *next);
    const std::span blocks(batch.block_table);
    part.add_sequence(std::span(batch.tokens).subspan(piece.begin, piece.end - piece.begin),
                      batch.positions[piece.begin],
                      blocks.subspan(batch.table_begin[s], batch.table_begin[s + 1] - batch.table_begin[s]),
                      Batch::Sample::kNone, piece.owner, batch.prompt_length(s));
    append_rows(batch, piece.begin, piece.end, part);
  }
  return part;
}

Batch rows_of(const Batch& batch, int begin, int end) {
  std::vector<Piece> pieces;
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const int first = std::max(begin, batch.sequence_begin[s]), last = std::min(end, batch.sequence_begin[s + 1]);
    if (first < last) pieces.push_back({first, last, batch.sequence_owner[s]});
  }
  return pieces_of(batch, pieces);
}

std::size_t encoded_words(const Batch& batch) {
  std::size_t words = 2;
  for (const auto array : kArrays) words += 1 + (batch.*array).size();
  if (!batch.route_rows.empty()) words += 4 + batch.route.experts_TLK.size() + batch.route.weights_TLK.size();
  return words + (batch.prompt_lengths.empty() ? 0 : 1 + batch.prompt_lengths.size());
}

std::vector<std::int32_t> encode(const Batch& batch) {
  std::vector<std::int32_t> message{batch.layers.begin, batch.layers.end};
  message.reserve(encoded_words(batch));
  for (const auto array : kArrays) append(message, batch.*array);
  if (!batch.route_rows.empty()) append(message, batch.route);
  if (!batch.prompt_lengths.empty()) append(message, batch.prompt_lengths);  // of few models: no word in others
  return message;
}

Batch decode(std::span<const std::int32_t> message, int num_layers, int vocab_size, int kv_blocks, int owners) {
  Batch batch;
  batch.layers = take_layers(message, num_layers);
  for (const auto array : kArrays) batch.*array = take(message);
  if (!batch.route_rows.empty()) batch.route = take_route(message);
  if (!message.empty()) {
    batch.prompt_lengths = take(message);
    if (batch.prompt_lengths.empty() || batch.prompt_lengths.size() != batch.sequence_owner.size())
      fail("batch message: expected the end, or lengths of {} prompts, got {}", batch.sequence_owner.size(),
           batch.prompt_lengths.size());
  }
  if (!message.empty()) fail("batch message: expected the end, got {} more words", message.size());
  if (batch.positions.size() != batch.tokens.size())
    fail("batch message: expected {} positions, got {}", batch.tokens.size(), batch.positions.size());
  check_offsets(batch.sequence_begin, batch.tokens.size(), "sequence_begin");
  check_offsets(batch.table_begin, batch.block_table.size(), "table_begin");
  if (batch.table_begin.size() != batch.sequence_begin.size())
    fail("batch message: expected {} block tables, got {}", batch.num_sequences(), batch.table_begin.size() - 1);
  if (static_cast<int>(batch.sequence_owner.size()) != batch.num_sequences())
    fail("batch message: expected {} owners of sequences, got {}", batch.num_sequences(), batch.sequence_owner.size());
  check_range(batch.prompt_lengths, std::numeric_limits<std::int32_t>::max(), "a length of a prompt");
  check_range(batch.tokens, vocab_size, "a token");
  check_range(batch.block_table, kv_blocks, "a KV block");
  check_range(batch.sequence_owner, owners, "an owner");
  check_ascent(batch.sequence_owner, std::greater(), "owners");
  check_range(batch.sampled_rows, batch.num_tokens(), "a sampled row");
  check_ascent(batch.sampled_rows, std::greater_equal(), "sampled rows");
  if (batch.candidates.size() != batch.sampled_rows.size())
    fail("batch message: expected {} numbers of candidates, got {}", batch.num_sampled(), batch.candidates.size());
  for (const std::int32_t wanted : batch.candidates)
    if (wanted != kWantsState && (wanted < 0 || wanted > kMaxCandidates))
      fail("batch message: expected a number of candidates in [0, {}], or {} for a state, got {}", kMaxCandidates,
           kWantsState, wanted);
  if (!batch.route_rows.empty() && batch.route_rows.size() != batch.tokens.size())
    fail("batch message: expected a row of the route for each of {} tokens, got {}", batch.tokens.size(),
         batch.route_rows.size());
  for (const std::int32_t row : batch.route_rows)
    if (row < -1 || row >= batch.route.tokens())
      fail("batch message: expected a row of the route in [-1, {}), got {}", batch.route.tokens(), row);
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const int capacity = (batch.table_begin[s + 1] - batch.table_begin[s]) * kKvBlock;
    for (int t = batch.sequence_begin[s]; t < batch.sequence_begin[s + 1]; ++t) {
      const int expected = batch.positions[batch.sequence_begin[s]] + (t - batch.sequence_begin[s]);
      if (batch.positions[t] != expected || expected < 0 || expected >= capacity)
        fail("batch message: expected position {} of sequence {} within its {} KV slots, got {}", expected, s, capacity,
             batch.positions[t]);
    }
  }
  return batch;
}

}  // namespace foe
