// Reads what the server has to know of the model that it serves.
#pragma once

#include "server/api/generation_request.h"
#include "server/front_end.h"

namespace foe {

// The model's name goes into JSON and into metrics, but a folder's name may be any bytes. Makes it valid UTF-8.
ServeOptions with_text_as_name(ServeOptions options);

// Loads the tokenizer, the chat template and the defaults of requests, and logs what a user should know of them. Throws
// Error for what cannot be read.
ServedModel served_model(const ServeOptions& options, const ModelConfig& config);

// What receipts say of the model, but for the digest of its weights and their formats in memory.
ReceiptModel receipt_model(const ServeOptions& options, const ServedModel& model, const ModelConfig& config);

}  // namespace foe
