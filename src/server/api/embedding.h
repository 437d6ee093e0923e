// The answer to POST /v1/embeddings: it takes what the ranks have pooled of each input, and writes the reply.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "server/api/embedding_request.h"
#include "server/api/generation_response.h"
#include "server/api/work_pool.h"
#include "server/http/server.h"
#include "server/metrics/metrics.h"
#include "server/ranks/answer.h"

namespace foe {

// How many inputs of one answer are with the ranks at a time: as many as run at once by default, and few enough to
// leave room for other requests.
inline constexpr std::size_t kInputsAtOnce = 32;

// Divides the vector by its Euclidean length, in double; one of zeros stays as it is.
void normalise(std::span<float> x);

class Embedding : public Answer {
 public:
  // `metrics` and `work_pool` must outlive this. Long replies are written in `work_pool`; if it is null, on the calling
  // thread.
  Embedding(AnswerHeader header, EmbeddingRequest request, int hidden_size, std::shared_ptr<HttpReply> reply,
            Metrics& metrics, WorkPool* work_pool = nullptr);

  bool take(std::size_t input, const TokenEvent& event) override;
  void fail(int status, const std::string& message) override;
  void client_left() override;
  bool ended() const override { return ended_; }
  std::string summary() const override;

 private:
  void send();
  void end_with(const std::string& status);
  std::int64_t prompt_tokens() const;

  AnswerHeader header_;
  EmbeddingRequest request_;
  int hidden_size_;
  std::shared_ptr<HttpReply> reply_;
  Metrics& metrics_;
  WorkPool* work_pool_;
  std::vector<std::vector<float>> states_;  // by input; empty until it has come
  std::int64_t cached_tokens_ = 0;
  std::size_t unfinished_;
  bool ended_ = false;
  std::string status_;
  Clock::time_point start_ = Clock::now(), end_ = start_;
};

}  // namespace foe
