#include "tokenizer/pipeline_json.h"

#include "base/error.h"
#include "text/base64.h"
#include "text/json_fields.h"
#include "text/utf8.h"
#include "tokenizer/tokenizer_json.h"

namespace foe {
namespace {

TextPattern parse_pattern(const JsonField& field) {
  if (const JsonField regex = field["Regex"]; !regex.null()) return Regex(regex.string());
  const JsonField text = field["String"];
  if (text.string().empty()) fail("{}: expected a text to find, got an empty one", text.path);
  return text.string();
}

// Reads a text that a step writes.
std::string parse_content(const JsonField& field) {
  if (field.string().size() > kMaxTokenBytes)
    fail("{}: expected at most {} bytes, got {}", field.path, kMaxTokenBytes, field.string().size());
  return field.string();
}

ReplaceText parse_replace(const JsonField& step) {
  return {parse_pattern(step["pattern"]), parse_content(step["content"])};
}

std::string parse_character(const JsonField& field) {
  const std::string& text = field.string();
  if (text.empty() || read_utf8(text, 0).size != text.size())
    fail("{}: expected one character, got '{}'", field.path, text.substr(0, 100));
  return text;
}

MapGraphemes parse_charsmap(const JsonField& step) {
  const JsonField field = step["precompiled_charsmap"];
  const auto bytes = decode_base64(field.string());
  if (!bytes) fail("{}: expected base64, got something else", field.path);
  return {std::make_shared<const Charsmap>(*bytes)};
}

SplitBehavior parse_behavior(const JsonField& field) {
  const std::string& name = field.string();
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  unsupported(field, name, "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

using Prepend = MetaspaceStep::Prepend;

// Reads prepend_scheme, or add_prefix_space, which older files have instead of it or besides it.
Prepend parse_prepend_scheme(const JsonField& step) {
  const JsonField field = step["prepend_scheme"];
  const std::string scheme = field.null() ? "always" : field.string();
  if (!step["add_prefix_space"].boolean_or(true)) {
    if (!field.null() && scheme != "never")
      fail("{}: expected never, as add_prefix_space is false, got '{}'", field.path, scheme);
    return Prepend::kNever;
  }
  if (scheme == "always") return Prepend::kAlways;
  if (scheme == "first") return Prepend::kFirst;
  if (scheme == "never") return Prepend::kNever;
  unsupported(field, scheme, "always, first or never");
}

std::size_t parse_count(const JsonField& field) {
  const std::int64_t count = field.integer();
  if (count < 0 || count > static_cast<std::int64_t>(kMaxTokenBytes))
    fail("{}: expected 0 to {}, got {}", field.path, kMaxTokenBytes, count);
  return static_cast<std::size_t>(count);
}

// Reads the steps of a decoder. Up to Fuse they work on each token, then on the whole text.
class DecoderReader {
 public:
  void step(const JsonField& step) {
    const std::string type = type_of(step);
    if (spec_.byte_level) unsupported(step, type, "ByteLevel, once");
    if (type == "ByteLevel" && empty_) {
      spec_.byte_level = true;
    } else if (type == "Replace" && on_names()) {
      if (const JsonField regex = step["pattern"]["Regex"]; !regex.null())
        unsupported(regex, regex.string(), "a String");
      spec_.steps.push_back(parse_replace(step));
    } else if (type == "Metaspace" && on_names()) {
      metaspace(step);
    } else if (type == "ByteFallback" && on_names()) {
      spec_.byte_fallback = true;
    } else if (type == "Strip" && (on_names() || fused_)) {
      strip(step);
    } else if (type == "Fuse") {
      fused_ = true;
    } else {
      unsupported(step, step.null() ? "null" : type,
                  "ByteLevel, or Replace, Strip and Metaspace, ByteFallback, Fuse and Strip in this order");
    }
    empty_ = false;
  }
  bool empty() const { return empty_; }
  DecoderSpec take() { return std::move(spec_); }

 private:
  bool on_names() const { return !fused_ && !spec_.byte_fallback; }

  void metaspace(const JsonField& step) {
    const bool drops = parse_prepend_scheme(step) != Prepend::kNever;
    spec_.steps.push_back(RestoreSpaces{parse_character(step["replacement"]), drops});
    if (drops) start(step, DropInFirstToken());
  }

  void strip(const JsonField& step) {
    const StripCharacters strip{parse_character(step["content"]), parse_count(step["start"]),
                                parse_count(step["stop"])};
    if (!fused_) {
      spec_.steps.push_back(strip);
      return;
    }
    if (strip.stop > 0)
      unsupported(step["stop"], std::to_string(strip.stop), "0: the end of a text is not known early");
    if (strip.character.size() > 1) unsupported(step["content"], strip.character, "an ASCII character");
    if (strip.start > 0) start(step, DropFirst{strip.character[0], strip.start});
  }

  template <typename Start>
  void start(const JsonField& step, Start rule) {
    if (!std::holds_alternative<KeepAll>(spec_.start))
      fail("{}: expected one step that strips the beginning of a text, got another", step.path);
    spec_.start = rule;
  }

  DecoderSpec spec_;
  bool fused_ = false;
  bool empty_ = true;
};

}  // namespace

std::vector<NormalizerStep> parse_normalizer(const JsonField& field) {
  std::vector<NormalizerStep> steps;
  for_each_in_sequence(field, "normalizers", [&](const JsonField& step) {
    if (step.null()) return;
    const std::string type = type_of(step);
    if (type == "NFC") {
      steps.push_back(NormalForm::kNfc);
    } else if (type == "NFD") {
      steps.push_back(NormalForm::kNfd);
    } else if (type == "NFKC") {
      steps.push_back(NormalForm::kNfkc);
    } else if (type == "NFKD") {
      steps.push_back(NormalForm::kNfkd);
    } else if (type == "Lowercase") {
      steps.push_back(Lowercase());
    } else if (type == "Strip") {
      steps.push_back(StripSpaces{step["strip_left"].boolean(), step["strip_right"].boolean()});
    } else if (type == "Replace") {
      steps.push_back(parse_replace(step));
    } else if (type == "Prepend") {
      steps.push_back(PrependText{parse_content(step["prepend"])});
    } else if (type == "Precompiled") {
      steps.push_back(parse_charsmap(step));
    } else {
      unsupported(step, type,
                  "null, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Replace, Prepend, Precompiled or a Sequence of them");
    }
  });
  return steps;
}

PreTokenizer parse_pre_tokenizer(const JsonField& field, bool& byte_level) {
  PreTokenizer steps;
  byte_level = false;
  for_each_in_sequence(field, "pretokenizers", [&](const JsonField& step) {
    if (step.null()) return;
    const std::string type = type_of(step);
    if (byte_level) fail("{}: expected ByteLevel to come last, got '{}' after it", step.path, type);
    if (type == "Split") {
      steps.push_back(SplitStep{parse_pattern(step["pattern"]), parse_behavior(step["behavior"]),
                                step["invert"].boolean_or(false)});
    } else if (type == "Digits") {
      const bool single = step["individual_digits"].boolean_or(false);
      steps.push_back(
          SplitStep{Regex(R"(\p{N})"), single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false});
    } else if (type == "WhitespaceSplit") {
      steps.push_back(SplitStep{Regex(R"(\s)"), SplitBehavior::kRemoved, false});
    } else if (type == "Metaspace") {
      steps.push_back(MetaspaceStep{parse_character(step["replacement"]), parse_prepend_scheme(step),
                                    step["split"].boolean_or(true)});
    } else if (type == "ByteLevel") {
      byte_level = true;
      if (step["add_prefix_space"].boolean_or(true)) steps.push_back(PrefixSpaceStep());
      if (step["use_regex"].boolean_or(true)) steps.push_back(gpt2_split());
    } else {
      unsupported(step, type,
                  "null, Split, Digits, WhitespaceSplit, Metaspace and, last, ByteLevel, or a Sequence of them");
    }
  });
  return steps;
}

DecoderSpec parse_decoder(const JsonField& field, bool byte_level) {
  DecoderReader reader;
  for_each_in_sequence(field, "decoders", [&](const JsonField& step) { reader.step(step); });
  if (reader.empty()) fail("{}: expected a decoder, got an empty Sequence", field.path);
  DecoderSpec spec = reader.take();
  if (spec.byte_level != byte_level)
    fail("{}: expected ByteLevel in both the pre-tokenizer and the decoder, or in neither, got it in the {}",
         field.path, byte_level ? "pre-tokenizer" : "decoder");
  return spec;
}

}  // namespace foe
