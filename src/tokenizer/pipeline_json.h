// Reads the steps around the model in a tokenizer.json: normalizer, pre-tokenizer and decoder. All throw Error, naming
// the member, for a step that is not supported.
#pragma once

#include <vector>

#include "tokenizer/tokenizer_spec.h"

namespace foe {

struct JsonField;

std::vector<NormalizerStep> parse_normalizer(const JsonField& field);
// Sets `byte_level` if the last step is ByteLevel.
PreTokenizer parse_pre_tokenizer(const JsonField& field, bool& byte_level);
// `byte_level`: whether the decoder must be ByteLevel, or must not.
DecoderSpec parse_decoder(const JsonField& field, bool byte_level);

}  // namespace foe
