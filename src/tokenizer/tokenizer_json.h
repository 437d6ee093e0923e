// Reads a Hugging Face tokenizer.json into plain data, and checks that foe supports what it asks for.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer_spec.h"

namespace foe {

struct JsonField;

// Throws Error, naming the member, what was expected and what was found. Members for truncation and padding are
// ignored. Ids in the result are non-negative and at most max_token_id(); whether names in merges exist is not checked
// here.
TokenizerSpec parse_tokenizer_json(std::string_view text);

// --- for the readers of other files ---

// Throws Error that says what is supported instead of what was found.
[[noreturn]] void unsupported(const JsonField& field, std::string_view found, std::string_view supported);
// Returns the "type" of an object; empty if the object is null.
std::string type_of(const JsonField& field);
// Throws Error unless the token has 1 to kMaxTokenBytes bytes.
void check_token(const std::string& token, const std::string& path);
// Returns an id that is at most max_token_id(tokens).
std::int32_t token_id(const JsonField& field, std::size_t tokens);
// Reads an added token, but for its id.
AddedToken parse_added_token(const JsonField& entry);

// Calls `visit` for `field` or, if it is a Sequence, for each element of its list named `list`, at any depth.
void for_each_in_sequence(const JsonField& field, std::string_view list,
                          const std::function<void(const JsonField&)>& visit);

}  // namespace foe
