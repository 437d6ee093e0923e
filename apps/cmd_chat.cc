// foe chat: a conversation with a model in the terminal.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <optional>
#include <poll.h>
#include <unistd.h>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/inherited.h"
#include "commands.h"
#include "common.h"
#include "engine/sampler.h"
#include "jinja/chat_template.h"
#include "text/utf8.h"
#include "tokenizer/tokenizer.h"
#include "weights/config_json.h"

namespace foe {
namespace {

constexpr int kDefaultPositions = 8192;  // of the KV cache, unless the model's context is shorter

struct ChatFlags {
  ModelFlags model;
  SamplingParams sampling;
  std::string system, chat_template;
  int kv_tokens = 0;   // 0: kDefaultPositions
  int max_tokens = 0;  // of an answer; 0: until the KV cache is full
  int draft_tokens = 0;
};

// While it exists, Ctrl-C sets asked(), instead of ending the program.
class InterruptibleAnswer {
 public:
  InterruptibleAnswer() : before_(std::signal(SIGINT, [](int) { asked_ = 1; })) { asked_ = 0; }
  ~InterruptibleAnswer() { std::signal(SIGINT, before_); }
  InterruptibleAnswer(const InterruptibleAnswer&) = delete;
  InterruptibleAnswer& operator=(const InterruptibleAnswer&) = delete;

  bool asked() const { return asked_; }

 private:
  inline static volatile std::sig_atomic_t asked_ = 0;
  void (*before_)(int);
};

// Reads lines of standard input, and calls `wait` every second while there is none.
class LineReader {
 public:
  explicit LineReader(std::function<void()> wait) : wait_(std::move(wait)) {}

  // Returns nothing at the end of the input. Throws Error if it cannot be read, or a line is too long.
  std::optional<std::string> next() {
    for (std::size_t seen = 0;;) {
      const std::size_t end = pending_.find('\n', seen);
      if (end != std::string::npos || ended_) {
        if (pending_.empty()) return std::nullopt;
        std::string line = pending_.substr(0, end);
        pending_.erase(0, end == std::string::npos ? end : end + 1);
        return line;
      }
      seen = pending_.size();
      if (seen > kMostBytes) fail("standard input: expected lines of at most {} bytes, got a longer one", kMostBytes);
      read_more();
    }
  }

 private:
  static constexpr std::size_t kMostBytes = 16 << 20;

  void read_more() {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, 1000) == 0) return wait_();
    char buffer[4096];
    const ssize_t size = read(STDIN_FILENO, buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) return;
    if (size < 0) fail("standard input: cannot be read: {}", std::strerror(errno));
    ended_ = size == 0;
    pending_.append(buffer, size);
  }

  std::function<void()> wait_;
  std::string pending_;
  bool ended_ = false;
};

struct AnswerTimes {
  int cached = 0, prompt = 0, tokens = 0;
  double first_token_s = 0, decode_s = 0;
};

class Conversation {
 public:
  Conversation(const ChatFlags& flags, Engine& engine, const Tokenizer& tokenizer, const ChatTemplate& chat_template)
      : flags_(flags), engine_(engine), tokenizer_(tokenizer), template_(chat_template) {
    begin();
  }

  void begin() {
    messages_ = nlohmann::ordered_json::array();
    if (!flags_.system.empty()) messages_.push_back({{"role", "system"}, {"content", flags_.system}});
  }

  // Prints the answer as it comes. Throws Error for a message that cannot be answered; the conversation is then as it
  // was before.
  AnswerTimes answer(const std::string& message) {
    check_utf8(message, "the message");
    nlohmann::ordered_json messages = messages_;
    messages.push_back({{"role", "user"}, {"content", message}});
    // The template has written the special tokens into the text.
    std::vector<std::int32_t> prompt =
        tokenizer_.encode(template_.render(messages, nullptr), {.add_special_tokens = false});
    AnswerTimes times;
    const std::string text = run(request_for(std::move(prompt)), times);
    messages.push_back({{"role", "assistant"}, {"content", text}});
    messages_ = std::move(messages);
    return times;
  }

 private:
  Request request_for(std::vector<std::int32_t> prompt) {
    tokenizer_.check_ids(prompt, engine_.model().config.vocab_size);
    const int room = flags_.kv_tokens - static_cast<int>(prompt.size());
    if (prompt.empty()) fail("the model's chat template makes an empty prompt of this conversation");
    if (room < 1)
      fail("the conversation has {} tokens, but there is room for {}: /new begins another, and --kv-tokens makes room",
           prompt.size(), flags_.kv_tokens);
    Request request;
    request.id = ++last_id_;
    request.prompt = std::move(prompt);
    request.max_tokens = flags_.max_tokens > 0 ? std::min(flags_.max_tokens, room) : room;
    request.stop_ids = tokenizer_.end_ids(engine_.model().config.eos_token_ids);
    request.sampling = flags_.sampling;
    return request;
  }

  std::string run(Request request, AnswerTimes& times) {
    const InterruptibleAnswer interrupt;
    StreamDecoder decoder(tokenizer_, /*skip_special_tokens=*/true);
    decoder.begin_after(request.prompt.tokens());
    times.prompt = static_cast<int>(request.prompt.size());
    engine_.submit(std::move(request));
    std::string text;
    const auto show = [&](const std::string& piece) {
      text += piece;
      print_now(piece);
    };
    auto start = Clock::now();
    while (!engine_.idle()) {
      for (const TokenEvent& event : engine_.step()) {
        if (++times.tokens == 1) {
          times.cached = event.cached_tokens;
          times.first_token_s = seconds_since(start);
          start = Clock::now();
        }
        if (event.finish != FinishReason::kStop) show(decoder.push(event.token));
      }
      if (!engine_.failed().empty()) fail(kNotFinite);
      if (interrupt.asked()) engine_.abort(last_id_);
    }
    times.decode_s = seconds_since(start);
    show(decoder.finish());
    print_now("\n");
    return text;
  }

  const ChatFlags& flags_;
  Engine& engine_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& template_;
  nlohmann::ordered_json messages_;
  std::int64_t last_id_ = 0;
};

void print_times(const AnswerTimes& times) {
  fmt::print(stderr, "[{} prompt tokens, {} of them cached; first token after {:.0f} ms", times.prompt, times.cached,
             1e3 * times.first_token_s);
  if (times.tokens > 1) fmt::print(stderr, "; {:.1f} tokens/s", (times.tokens - 1) / times.decode_s);
  fmt::print(stderr, "]\n");
}

// Answers each line of standard input. At a terminal it shows a prompt, and a message that cannot be answered is no
// reason to end.
void converse(Conversation& conversation, LineReader lines) {
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) fmt::print(stderr, "/new begins a new conversation, Ctrl-C stops an answer, Ctrl-D ends.\n");
  for (;;) {
    if (terminal) print_now("\n> ");
    const std::optional<std::string> line = lines.next();
    if (!line) break;
    if (line->find_first_not_of(" \t\r") == std::string::npos) continue;
    if (*line == "/new") {
      conversation.begin();
      continue;
    }
    try {
      const AnswerTimes times = conversation.answer(*line);
      if (terminal) print_times(times);
    } catch (const Error& error) {
      if (!terminal) throw;
      print_error(std::string("foe: ") + error.what());
    }
  }
  if (terminal) print_now("\n");
}

void run_chat(ChatFlags flags) {
  validate(flags.sampling);
  const std::string& folder = flags.model.model;
  const Tokenizer tokenizer = Tokenizer::of_model(folder);
  const ModelConfig config = load_model_config(folder);
  const ChatTemplate chat_template = ChatTemplate::load(folder, flags.chat_template);
  if (!chat_template.present())
    fail(
        "{}: expected a model with a chat template, got none; --chat-template FILE gives one, and `foe generate` "
        "continues a text without",
        folder);
  print_notes(folder, tokenizer, config);
  if (flags.kv_tokens == 0) flags.kv_tokens = kDefaultPositions;
  flags.kv_tokens = std::min(flags.kv_tokens, config.max_position_embeddings);
  EngineOptions options;
  options.max_sequences = 1;
  options.max_draft = flags.draft_tokens;
  options.kv_tokens = flags.kv_tokens;
  run_on_all_ranks(flags.model, options, [&](Engine& engine) {
    Conversation conversation(flags, engine, tokenizer, chat_template);
    // The other ranks would give up if they heard nothing while somebody thinks.
    converse(conversation, LineReader([&] { engine.heartbeat(); }));
  });
}

}  // namespace

void add_chat_command(Command app) {
  auto flags = std::make_shared<ChatFlags>();
  Command command = app.subcommand("chat", "Talk to a model in the terminal; each line of standard input is a message");
  add_model_flags(command, flags->model);
  command.option("--system", flags->system, "system message, which comes before the conversation");
  command.option("--chat-template", flags->chat_template,
                 "file with the Jinja template that turns a chat into a prompt; default: the model's own");
  command
      .option("--kv-tokens", flags->kv_tokens,
              fmt::format("most tokens of a conversation; default: {}, or the model's context if that is shorter",
                          kDefaultPositions))
      .range(16, 1 << 30);
  command.option("--max-tokens", flags->max_tokens, "most tokens of an answer; default: what --kv-tokens leaves")
      .range(1, 1 << 24);
  add_draft_tokens(command, flags->draft_tokens);
  flags->sampling.temperature = 0.7f;
  add_sampling_flags(command, flags->sampling);
  runs_on_model(command, flags->model.model, [flags] { run_chat(*flags); });
}

}  // namespace foe
