// The answer to one GET /health_generate: it succeeds when a token has come, for which all ranks have to work.
#pragma once

#include <memory>
#include <string>

#include "sched/scheduler.h"
#include "server/http/api_error.h"
#include "server/http/server.h"
#include "server/ranks/answer.h"

namespace foe {

class HealthProbe : public Answer {
 public:
  // Holds `place` during its life, so that its owner can count probes.
  HealthProbe(std::shared_ptr<HttpReply> reply, std::shared_ptr<int> place)
      : reply_(std::move(reply)), place_(std::move(place)) {}

  // One token, ahead of every client's request.
  static Request request() {
    Request request;
    request.prompt = {0};
    request.max_tokens = 1;
    request.priority = -kMaxPriority;
    return request;
  }

  bool take(std::size_t, const TokenEvent&) override {
    ended_ = true;
    reply_->send({.body = "{}"});
    return true;
  }
  void fail(int, const std::string& message) override {
    ended_ = true;
    send_error(*reply_, 503, message);
  }
  void client_left() override { ended_ = true; }
  bool ended() const override { return ended_; }
  std::string summary() const override { return ""; }

 private:
  std::shared_ptr<HttpReply> reply_;
  std::shared_ptr<int> place_;
  bool ended_ = false;
};

}  // namespace foe
