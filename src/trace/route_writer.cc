#include "trace/route_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <unistd.h>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/error.h"
#include "base/inherited.h"
#include "base/strict_json.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

constexpr char kMagic[] = "foeroute";
constexpr std::uint32_t kVersion = 1;

struct Head {
  char magic[8];
  std::uint32_t version, stop, json_bytes;
};

std::string partial_of(const std::string& path) {
  return path + ".partial";
}

[[noreturn]] void fail_with_reason(const std::string& path, const char* action) {
  fail("{}: expected to {} it, got: {}", path, action, std::strerror(errno));
}

// Returns false if the system refuses.
bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

template <typename T>
std::string_view bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

std::size_t row_bytes(const RouteForm& form) {
  return sizeof(RoutedToken) + form.words() * sizeof(std::int32_t);
}

// What is no file could not be replaced by the record, which would be noticed only when the run has ended.
std::string checked_place(std::string path) {
  struct stat there {};
  if (stat(path.c_str(), &there) == 0 && !S_ISREG(there.st_mode))
    fail("{}: expected a file for the record of routes, or a new name, got something else (mode {:o})", path,
         there.st_mode);
  return path;
}

// A FILE.partial, mapped.
class Partial {
 public:
  Partial(const std::string& path, int fd) : path_(path) {
    struct stat status {};
    if (fstat(fd, &status) != 0) fail_with_reason(path, "read");
    size_ = static_cast<std::size_t>(status.st_size);
    removed_ = status.st_nlink == 0;
    if (size_ == 0) return;
    void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) fail_with_reason(path, "map");
    data_.reset(static_cast<const char*>(data), [size = size_](const char* p) { munmap(const_cast<char*>(p), size); });
    read_head();
  }

  bool begun() const { return size_ > 0; }
  bool removed() const { return removed_; }  // it has no name any more
  RecordStop stop() const { return static_cast<RecordStop>(head_.stop); }
  const RouteForm& form() const { return form_; }
  const RouteOrigin& origin() const { return origin_; }
  std::size_t rows() const { return (size_ - begin_) / row_bytes(form_); }  // a row that was cut off does not count
  std::size_t end() const { return begin_ + rows() * row_bytes(form_); }
  RoutedToken token(std::size_t row) const {
    RoutedToken token;
    std::memcpy(&token, at(row), sizeof token);
    return token;
  }
  std::span<const std::byte> words(std::size_t row, std::size_t first, std::size_t count) const {
    return {reinterpret_cast<const std::byte*>(at(row) + sizeof(RoutedToken) + 4 * first), 4 * count};
  }

 private:
  const char* at(std::size_t row) const { return data_.get() + begin_ + row * row_bytes(form_); }

  void read_head() {
    if (size_ < sizeof head_) fail("{}: expected a record of routes, got {} bytes", path_, size_);
    std::memcpy(&head_, data_.get(), sizeof head_);
    if (std::memcmp(head_.magic, kMagic, sizeof head_.magic) != 0 || head_.version != kVersion ||
        head_.json_bytes > size_ - sizeof head_)
      fail("{}: expected a record of routes of version {}, got something else", path_, kVersion);
    const auto json = parse_strict_json({data_.get() + sizeof head_, head_.json_bytes}, path_);
    begin_ = sizeof head_ + head_.json_bytes;
    form_ = {json.at("layers"), json.at("entries"), json.at("scores"), json.at("inputs")};
    origin_ = {json.at("model"), json.at("plan"), json.at("ranks"), json.at("experts").get<std::vector<int>>()};
  }

  std::string path_;
  std::shared_ptr<const char> data_;
  std::size_t size_ = 0, begin_ = 0;
  bool removed_ = false;
  Head head_ = {};
  RouteForm form_;
  RouteOrigin origin_;
};

std::string head_of(const RouteForm& form, const RouteOrigin& origin) {
  const std::string json = nlohmann::json{{"layers", form.layers}, {"entries", form.entries},  {"scores", form.scores},
                                          {"inputs", form.inputs}, {"model", origin.model},    {"plan", origin.plan},
                                          {"ranks", origin.ranks}, {"experts", origin.experts}}
                               .dump();
  Head head{.magic = {}, .version = kVersion, .stop = 0, .json_bytes = static_cast<std::uint32_t>(json.size())};
  std::memcpy(head.magic, kMagic, sizeof head.magic);
  return std::string(reinterpret_cast<const char*>(&head), sizeof head) + json;
}

// The rows in the order of the record, each position once.
std::vector<std::size_t> order_of(const Partial& partial) {
  struct Key {
    std::int64_t sequence;
    std::int32_t position;
    std::size_t row;
  };
  std::vector<Key> keys(partial.rows());
  for (std::size_t row = 0; row < keys.size(); ++row) {
    const RoutedToken token = partial.token(row);
    keys[row] = {token.sequence, token.position, row};
  }
  const auto place = [](const Key& key) { return std::tie(key.sequence, key.position); };
  std::ranges::sort(
      keys, [&](const Key& a, const Key& b) { return place(a) == place(b) ? a.row < b.row : place(a) < place(b); });
  keys.erase(std::unique(keys.begin(), keys.end(), [&](const Key& a, const Key& b) { return place(a) == place(b); }),
             keys.end());
  std::vector<std::size_t> order;
  for (const Key& key : keys) order.push_back(key.row);
  return order;
}

// Why rows may be missing, or "yes".
const char* completeness(RecordStop stop, bool removed) {
  switch (stop) {
    case RecordStop::kNone:
      return removed ? "no: it was removed while it was written" : "yes";
    case RecordStop::kFull:
      return "no: the most bytes were reached";
    default:
      return "no: the disk refused more";
  }
}

void write_record(const std::string& path, const Partial& partial) {
  const std::vector<std::size_t> order = order_of(partial);
  const RouteForm& form = partial.form();
  const RouteOrigin& origin = partial.origin();
  const auto N = static_cast<std::int64_t>(order.size()), L = std::int64_t{form.layers}, K = std::int64_t{form.entries};
  std::vector<TensorSource> sources;
  const auto add = [&](const char* name, const char* type, std::vector<std::int64_t> shape, auto write_row) {
    sources.push_back({name, find_stored_type(type), std::move(shape), [&order, write_row](const auto& sink) {
                         for (const std::size_t row : order) write_row(row, sink);
                       }});
  };
  const auto add_field = [&](const char* name, const char* type, auto field) {
    add(name, type, {N}, [&partial, field](std::size_t row, const TensorSource::Sink& sink) {
      const RoutedToken token = partial.token(row);
      sink(std::as_bytes(std::span(&(token.*field), 1)));
    });
  };
  const auto add_words = [&](const char* name, const char* type, std::int64_t width, std::size_t first) {
    if (width == 0) return;
    add(name, type, {N, L, width}, [&partial, first, count = L * width](std::size_t row, const auto& sink) {
      sink(partial.words(row, first, static_cast<std::size_t>(count)));
    });
  };
  add_field("sequences", "I64", &RoutedToken::sequence);
  add_field("positions", "I32", &RoutedToken::position);
  add_field("tokens", "I32", &RoutedToken::token);
  add_field("steps", "I64", &RoutedToken::step);
  add_field("owners", "I32", &RoutedToken::owner);
  add_words("experts", "I32", K, form.experts_at(0));
  add_words("weights", "F32", K, form.weights_at(0));
  add_words("scores", "F32", form.scores, form.scores_at(0));
  add_words("inputs", "F32", form.inputs, form.inputs_at(0));
  write_tensor_file(path, std::move(sources),
                    {{"foe_routes", "1"},
                     {"model", origin.model},
                     {"plan", origin.plan},
                     {"ranks", std::to_string(origin.ranks)},
                     {"layers", std::to_string(form.layers)},
                     {"entries", std::to_string(form.entries)},
                     {"experts", fmt::format("{}", fmt::join(origin.experts, ","))},
                     {"complete", completeness(partial.stop(), partial.removed())}});
}

}  // namespace

RouteRecord::RouteRecord(std::string path)
    : path_(checked_place(std::move(path))),
      fd_(open(partial_of(path_).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644)) {
  const std::string partial = partial_of(path_);
  if (fd_ < 0) fail_with_reason(partial, "create");
  const bool locked = flock(fd_, LOCK_EX | LOCK_NB) == 0;
  if (locked && ftruncate(fd_, 0) == 0) return;
  const int reason = errno;
  close(fd_);
  if (!locked && reason == EWOULDBLOCK)
    fail("{}: expected a file of its own, but another process is recording routes there", partial);
  fail("{}: expected to write it, got: {}", partial, std::strerror(reason));
}

RouteRecord::~RouteRecord() {
  close(fd_);
}

void RouteRecord::finish() {
  const std::string partial_path = partial_of(path_);
  const Partial partial(partial_path, fd_);
  if (partial.begun()) write_record(path_, partial);
  if (!partial.removed()) unlink(partial_path.c_str());  // the name may be another process's now
}

RouteWriter::RouteWriter(const std::string& path, const RouteForm& form, const RouteOrigin& origin,
                         std::int64_t most_bytes)
    : path_(partial_of(path)), form_(form), most_bytes_(most_bytes) {
  FOE_CHECK(form.layers > 0 && static_cast<int>(origin.experts.size()) == form.layers, "{} layers, experts of {}",
            form.layers, origin.experts.size());
  fd_ = open(path_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd_ < 0 && errno == ENOENT) {
    end("it was removed");
    return;
  }
  if (fd_ < 0) fail_with_reason(path_, "open");
  try {
    const Partial before(path_, fd_);
    if (!before.begun()) {
      const std::string head = head_of(form, origin);
      if (!write_all(fd_, head)) fail_with_reason(path_, "write");
      bytes_ = static_cast<std::int64_t>(head.size());
      return;
    }
    if (before.form() != form || before.origin().model != origin.model)
      fail("{}: expected a record of the same form and model, {}, got one of {}", path_, origin.model,
           before.origin().model);
    stopped_ = before.stop() != RecordStop::kNone;
    if (before.rows() > 0) first_step_ = before.token(before.rows() - 1).step + 1;
    bytes_ = static_cast<std::int64_t>(before.end());
    if (ftruncate(fd_, bytes_) != 0 || lseek(fd_, bytes_, SEEK_SET) < 0) fail_with_reason(path_, "write");
  } catch (...) {
    close(fd_);
    throw;
  }
}

RouteWriter::~RouteWriter() {
  if (fd_ >= 0) close(fd_);
}

void RouteWriter::end(const std::string& reason) {
  stopped_ = true;
  print_error(fmt::format("foe: {}: the record of routes ends here: {}", path_, reason));
}

void RouteWriter::stop(RecordStop why, const std::string& reason) {
  const auto value = static_cast<std::uint32_t>(why);
  if (pwrite(fd_, &value, sizeof value, offsetof(Head, stop)) != sizeof value) errno = 0;  // end() says it, too
  end(reason);
}

void RouteWriter::add_step(std::span<const RoutedToken> tokens, std::span<const std::int32_t> rows_TW) {
  const std::size_t W = form_.words();
  FOE_CHECK(rows_TW.size() == tokens.size() * W, "{} words for {} tokens of {}", rows_TW.size(), tokens.size(), W);
  if (stopped_) return;
  block_.clear();
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    RoutedToken token = tokens[t];
    token.step += first_step_;
    block_ += bytes_of(std::span<const RoutedToken>(&token, 1));
    block_ += bytes_of(rows_TW.subspan(t * W, W));
  }
  const std::int64_t end = bytes_ + static_cast<std::int64_t>(block_.size());
  if (most_bytes_ > 0 && end > most_bytes_)
    return stop(RecordStop::kFull, fmt::format("it has {} bytes, and may have {}", bytes_, most_bytes_));
  if (!write_all(fd_, block_)) {
    const std::string reason = std::strerror(errno);
    if (ftruncate(fd_, bytes_) != 0) errno = 0;  // a row that was cut off is not read
    return stop(RecordStop::kUnwritable, reason);
  }
  bytes_ = end;
}

}  // namespace foe
