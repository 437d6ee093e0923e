#include "tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <algorithm>
#include <array>
#include <new>
#include <pcre2.h>

#include "base/check.h"
#include "base/error.h"
#include "text/utf8.h"
#include "tokenizer/run_ahead.h"

namespace foe {
namespace {

constexpr std::size_t kMaxPatternBytes = 16 * 1024;
constexpr std::size_t kMaxCompiledBytes = 1024 * 1024;
constexpr std::uint32_t kMaxHeapKib = 64 * 1024;

// All matches together may take so many steps. Matches of up to kFreeSteps are not counted. As each byte can be part of
// one match only, a good pattern needs few steps for each byte.
constexpr std::uint32_t kFreeSteps = 256;
std::size_t step_budget(std::size_t bytes) {
  return (std::size_t{1} << 20) + 128 * bytes;
}

// Returns how many steps one match may take with `bytes` of text ahead. The patterns of known models need about two for
// each byte of the match. A pattern that backtracks in more than linear time is stopped early.
std::uint32_t max_steps(std::size_t bytes) {
  return static_cast<std::uint32_t>(std::min<std::size_t>(1000 + 16 * bytes, 1u << 31));
}

std::string error_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct RegexScratch::State {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_match_data* ahead = nullptr;  // for matches inside a callout
};

void RegexScratch::Free::operator()(State* state) const {
  pcre2_match_data_free(state->data);
  pcre2_match_data_free(state->ahead);
  pcre2_match_context_free(state->context);
  delete state;
}

RegexScratch::RegexScratch() : state_(new State) {
  state_->data = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  state_->ahead = pcre2_match_data_create(1, nullptr);
  if (!state_->data || !state_->context || !state_->ahead) throw std::bad_alloc();
  pcre2_set_heap_limit(state_->context, kMaxHeapKib);
}

namespace {

using CodePointer = std::unique_ptr<pcre2_code, void (*)(pcre2_code*)>;

CodePointer compile(std::string_view pattern) {
  // In Oniguruma ^ and $ match at lines, and only
  //  ends a line.
  const std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  CodePointer code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &offset,
                                 context.get()),
                   pcre2_code_free);
  if (!code) fail("regex: {} at byte {} of '{}'", error_message(error), offset, pattern.substr(0, 200));
  std::size_t bytes = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_SIZE, &bytes);
  if (bytes > kMaxCompiledBytes) fail("regex: expected at most {} bytes compiled, got {}", kMaxCompiledBytes, bytes);
  // PCRE2's JIT compiler is not used: it does not count the steps of simple repeats, so that a*a*a*a*[bc] would run for
  // minutes on 300 bytes.
  return code;
}

bool match_at(const void* pattern, std::string_view text, std::size_t at, std::size_t& end, void* scratch) {
  auto* data = static_cast<pcre2_match_data*>(scratch);
  const int code = pcre2_match(static_cast<const pcre2_code*>(pattern), reinterpret_cast<PCRE2_SPTR>(text.data()),
                               text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, data, nullptr);
  if (code < 0) return false;
  end = pcre2_get_ovector_pointer(data)[1];
  return true;
}

int answer_callout(pcre2_callout_block* block, void* finder) {
  return static_cast<RunAheadFinder*>(finder)->matches(block->callout_number, block->current_position) ? 0 : 1;
}

}  // namespace

struct Regex::Code {
  CodePointer code{nullptr, pcre2_code_free};
  std::vector<CodePointer> parts;            // owns the patterns of `aheads`
  std::vector<RunAheadFinder::Code> aheads;  // by the number of their callout
};

Regex::Regex(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    fail("regex: expected at most {} bytes, got {}", kMaxPatternBytes, pattern.size());
  }
  check_utf8(pattern, "regex");
  std::string translated = to_pcre2_syntax(pattern);
  auto compiled = std::make_shared<Code>();
  compiled->code = compile(translated);
  if (const std::vector<RunAhead> aheads = take_run_aheads(translated); !aheads.empty()) {
    for (const RunAhead& ahead : aheads) {
      compiled->parts.push_back(compile(ahead.unit));
      compiled->parts.push_back(compile(ahead.tail));
      const std::size_t n = compiled->parts.size();
      compiled->aheads.push_back({compiled->parts[n - 2].get(), compiled->parts[n - 1].get(), ahead.at_least_one});
    }
    compiled->code = compile(translated);
  }
  code_ = std::move(compiled);
}

void Regex::find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(scratch.state_->data);
  RunAheadFinder finder(text, code_->aheads, match_at, scratch.state_->ahead);
  pcre2_set_callout(scratch.state_->context, code_->aheads.empty() ? nullptr : answer_callout, &finder);
  std::size_t budget = step_budget(text.size());
  const auto find = [&](std::size_t from) {
    const std::uint32_t most = max_steps(text.size() - from);
    for (std::uint32_t steps = std::min(kFreeSteps, most);; steps = most / 8 < steps ? most : 8 * steps) {
      pcre2_set_match_limit(scratch.state_->context, steps);
      const int code = pcre2_match(code_->code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                   scratch.state_->data, scratch.state_->context);
      if (steps > kFreeSteps) budget -= std::min<std::size_t>(budget, steps);
      if (code != PCRE2_ERROR_MATCHLIMIT || steps == most || budget == 0) return code;
    }
  };
  bool matched = false;
  std::size_t last_end = 0;
  for (std::size_t from = 0; from <= text.size();) {
    const int code = find(from);
    if (code == PCRE2_ERROR_NOMATCH) return;
    if (code < 0) fail("regex: gave up at byte {} of {}: {}", from, text.size(), error_message(code));
    const Span match{found[0], found[1]};
    FOE_CHECK(from <= match.begin && match.begin <= match.end && match.end <= text.size(), "{} {} {}", from,
              match.begin, match.end);
    if (match.begin == match.end && matched && match.end == last_end) {
      from += from < text.size() ? read_utf8(text, from).size : 1;
      continue;
    }
    out.push_back(match);
    matched = true;
    from = last_end = match.end;
  }
}

}  // namespace foe
