#include "simulate/cluster.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "base/error.h"
#include "base/text_file.h"

namespace foe {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;
constexpr double kMostSpeed = 1e18, kMostSeconds = 3600;
constexpr int kMostRows = 1 << 24;

// A table of the file. Keys that nobody has read are errors.
class Table {
 public:
  Table(const toml::table& file, const std::string& source, const std::string& path, bool required)
      : source_(source), path_(path) {
    const toml::node* node = &file;
    for (std::size_t at = 0; node && at < path.size();) {
      const std::size_t dot = std::min(path.find('.', at), path.size());
      const toml::table* table = node->as_table();
      node = table ? table->get(path.substr(at, dot - at)) : nullptr;
      at = dot + 1;
    }
    if (!node && required) fail("{}: expected a table [{}], got none", source, path);
    if (node && !node->as_table()) fail("{}: {}: expected a table, got {}", source, path, text_of(*node));
    table_ = node ? node->as_table() : nullptr;
  }

  // Reads key * unit, from `low` to `high` in the key's unit.
  double number(const char* key, double unit, double low, double high, std::optional<double> otherwise = {}) {
    const toml::node* node = find(key);
    if (!node && otherwise) return *otherwise;
    if (!node) fail("{}: {}: expected a number from {:g} to {:g}, got none", source_, name(key), low, high);
    const std::optional<double> value = node->is_number() ? node->value<double>() : std::nullopt;
    if (!value || !(*value >= low && *value <= high))
      fail("{}: {}: expected a number from {:g} to {:g}, got {}", source_, name(key), low, high, text_of(*node));
    return *value * unit;
  }
  // A speed, which must not be zero.
  double speed(const char* key, double unit) {
    return number(key, unit, std::numeric_limits<double>::min(), kMostSpeed / unit);
  }
  bool has(const char* key) { return find(key) != nullptr; }
  double seconds(const char* key, double unit) { return number(key, unit, 0, kMostSeconds / unit, 0); }

  int integer(const char* key, int low, int high) {
    const toml::node* node = find(key);
    if (!node) fail("{}: {}: expected an integer from {} to {}, got none", source_, name(key), low, high);
    const auto* value = node->as_integer();
    if (!value || value->get() < low || value->get() > high)
      fail("{}: {}: expected an integer from {} to {}, got {}", source_, name(key), low, high, text_of(*node));
    return static_cast<int>(value->get());
  }

  bool boolean(const char* key, bool otherwise) {
    const toml::node* node = find(key);
    if (node && !node->is_boolean()) fail("{}: {}: expected true or false, got {}", source_, name(key), text_of(*node));
    return node ? node->as_boolean()->get() : otherwise;
  }

  std::string text(const char* key, const std::string& otherwise) {
    const toml::node* node = find(key);
    if (node && !node->is_string()) fail("{}: {}: expected a text, got {}", source_, name(key), text_of(*node));
    return node ? node->as_string()->get() : otherwise;
  }

  // One speed, or as many as `rows` lists.
  SpeedByRows by_rows(const char* key, double unit, const std::vector<double>& rows) {
    if (const toml::node* node = find(key); !node || !node->is_array()) return {{1}, {speed(key, unit)}};
    std::vector<double> speeds = list(key, std::numeric_limits<double>::min(), kMostSpeed / unit);
    if (speeds.size() != rows.size())
      fail("{}: {}: expected a number, or one for each of the {} in {}, got {}", source_, name(key), rows.size(),
           name("rows"), speeds.size());
    for (double& one : speeds) one *= unit;
    return {rows, std::move(speeds)};
  }

  std::vector<double> rows() {
    if (!find("rows")) return {};
    std::vector<double> rows = list("rows", 1, kMostRows);
    for (std::size_t i = 1; i < rows.size(); ++i)
      if (rows[i] <= rows[i - 1])
        fail("{}: {}: expected ascending numbers, got {:g} after {:g}", source_, name("rows"), rows[i], rows[i - 1]);
    return rows;
  }

  // `tables`: keys that are tables of their own.
  void refuse_others(const std::set<std::string>& tables = {}) const {
    if (!table_) return;
    for (const auto& [key, node] : *table_)
      if (const std::string text(key.str()); !read_.contains(text) && !tables.contains(text))
        fail("{}: {}: expected no such key, got {}", source_, name(text.c_str()), text_of(node));
  }

 private:
  std::string name(const char* key) const { return path_.empty() ? key : path_ + "." + key; }
  static std::string text_of(const toml::node& node) {
    std::ostringstream text;
    node.visit([&](const auto& value) { text << toml::json_formatter(value); });
    return text.str().substr(0, 80);
  }

  const toml::node* find(const char* key) {
    read_.insert(key);
    return table_ ? table_->get(key) : nullptr;
  }

  std::vector<double> list(const char* key, double low, double high) {
    const toml::node* node = find(key);
    std::vector<double> values;
    if (const toml::array* array = node->as_array())
      for (const toml::node& element : *array) {
        const std::optional<double> value = element.is_number() ? element.value<double>() : std::nullopt;
        if (!value || !(*value >= low && *value <= high))
          fail("{}: {}: expected numbers from {:g} to {:g}, got {}", source_, name(key), low, high, text_of(element));
        values.push_back(*value);
      }
    if (values.empty()) fail("{}: {}: expected a list of numbers, got {}", source_, name(key), text_of(*node));
    return values;
  }

  const std::string& source_;
  std::string path_;
  const toml::table* table_ = nullptr;
  std::set<std::string> read_;
};

constexpr double kGiga = 1e9, kMicro = 1e-6, kMilli = 1e-3;

DeviceSpeed read_device(Table& t) {
  const std::vector<double> rows = t.rows();
  DeviceSpeed device{.bytes_per_s = t.speed("memory_gb_per_s", kGiga),
                     .projections = t.by_rows("projections_gflops", kGiga, rows),
                     .router = t.by_rows("router_gflops", kGiga, rows),
                     .experts = t.by_rows("experts_gflops", kGiga, rows),
                     .head = t.by_rows("head_gflops", kGiga, rows),
                     .attention = t.by_rows("attention_gflops", kGiga, rows),
                     .floats_per_s = t.speed("activations_gfloats_per_s", kGiga),
                     .block_s = t.seconds("block_us", kMicro)};
  t.refuse_others();
  return device;
}

LinkSpeed read_link(Table& t) {
  LinkSpeed link{.latency_s = t.seconds("latency_us", kMicro),
                 .message_s = t.seconds("message_us", kMicro),
                 .bytes_per_s = t.speed("gbit_per_s", kGiga / 8),
                 .sum_bytes_per_s = 0,
                 .shared = t.boolean("shared", false)};
  link.sum_bytes_per_s = t.has("sum_gbit_per_s") ? t.speed("sum_gbit_per_s", kGiga / 8) : link.bytes_per_s;
  t.refuse_others();
  return link;
}

}  // namespace

double SpeedByRows::at(double n) const {
  const auto above = std::ranges::lower_bound(rows, n) - rows.begin();
  if (above == 0) return per_s.front();
  if (above == std::ssize(rows)) return per_s.back();
  const double share = std::log(n / rows[above - 1]) / std::log(rows[above] / rows[above - 1]);
  return per_s[above - 1] + share * (per_s[above] - per_s[above - 1]);
}

Cluster parse_cluster(std::string_view text, const std::string& source) {
  toml::table file;
  try {
    file = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    fail("{}: line {}: {}", source, error.source().begin.line, error.description());
  }
  Table top(file, source, "", true), device(file, source, "device", true), node(file, source, "links.node", true),
      network(file, source, "links.network", false), links(file, source, "links", true),
      collectives(file, source, "collectives", false), engine(file, source, "engine", false);
  Cluster c;
  c.name = top.text("name", source);
  c.devices = top.integer("devices", 1, kMostDevices);
  c.per_node = top.integer("devices_per_node", 1, c.devices);
  top.refuse_others({"device", "links", "collectives", "engine"});
  c.device = read_device(device);
  c.node = read_link(node);
  c.network = c.per_node < c.devices ? read_link(network) : c.node;
  links.refuse_others({"node", "network"});
  const std::string algorithm = collectives.text("sum", "direct");
  if (algorithm != "direct" && algorithm != "ring")
    fail("{}: collectives.sum: expected \"direct\" or \"ring\", got \"{}\"", source, algorithm);
  c.sum_algorithm = algorithm == "ring" ? SumAlgorithm::kRing : SumAlgorithm::kDirect;
  c.sum_s = collectives.seconds("sum_us", kMicro);
  c.all_to_all_s = collectives.seconds("all_to_all_us", kMicro);
  c.message_s = collectives.seconds("message_us", kMicro);
  c.broadcast_s = collectives.seconds("broadcast_us", kMicro);
  c.gather_s = collectives.seconds("gather_us", kMicro);
  collectives.refuse_others();
  c.step_s = engine.seconds("step_us", kMicro);
  c.row_s = engine.seconds("row_us", kMicro);
  c.request_s = engine.seconds("request_ms", kMilli);
  c.token_s = engine.seconds("token_ms", kMilli);
  engine.refuse_others();
  return c;
}

Cluster load_cluster(const std::string& path) {
  return parse_cluster(read_text_file(path, kMaxFileBytes), path);
}

std::string to_toml(const Cluster& c) {
  const DeviceSpeed& d = c.device;
  const std::pair<const char*, const SpeedByRows*> products[] = {{"projections", &d.projections},
                                                                 {"router", &d.router},
                                                                 {"experts", &d.experts},
                                                                 {"head", &d.head},
                                                                 {"attention", &d.attention}};
  std::set<double> rows;
  for (const auto& [key, speed] : products) rows.insert(speed->rows.begin(), speed->rows.end());
  const auto speeds = [&](const SpeedByRows& speed) {
    std::string list;
    for (const double row : rows) list += fmt::format("{}{:.6g}", list.empty() ? "" : ", ", speed.at(row) / kGiga);
    return list;
  };
  std::string text = fmt::format(
      "name = \"{}\"\ndevices = {}\ndevices_per_node = {}\n\n[device]\nmemory_gb_per_s = {:.6g}\nrows = [{:.6g}]\n",
      c.name, c.devices, c.per_node, d.bytes_per_s / kGiga, fmt::join(rows, ", "));
  for (const auto& [key, speed] : products) text += fmt::format("{}_gflops = [{}]\n", key, speeds(*speed));
  text += fmt::format("activations_gfloats_per_s = {:.6g}\nblock_us = {:.6g}\n", d.floats_per_s / kGiga,
                      d.block_s / kMicro);
  const auto link = [&](const char* which, const LinkSpeed& l) {
    text += fmt::format(
        "\n[links.{}]\nlatency_us = {:.6g}\nmessage_us = {:.6g}\ngbit_per_s = {:.6g}\nsum_gbit_per_s = {:.6g}\n"
        "shared = {}\n",
        which, l.latency_s / kMicro, l.message_s / kMicro, l.bytes_per_s * 8 / kGiga, l.sum_bytes_per_s * 8 / kGiga,
        l.shared);
  };
  link("node", c.node);
  if (c.per_node < c.devices) link("network", c.network);
  text += fmt::format(
      "\n[collectives]\nsum = \"{}\"\nsum_us = {:.6g}\nall_to_all_us = {:.6g}\nmessage_us = "
      "{:.6g}\n"
      "broadcast_us = {:.6g}\ngather_us = {:.6g}\n",
      c.sum_algorithm == SumAlgorithm::kRing ? "ring" : "direct", c.sum_s / kMicro, c.all_to_all_s / kMicro,
      c.message_s / kMicro, c.broadcast_s / kMicro, c.gather_s / kMicro);
  text += fmt::format("\n[engine]\nstep_us = {:.6g}\nrow_us = {:.6g}\nrequest_ms = {:.6g}\ntoken_ms = {:.6g}\n",
                      c.step_s / kMicro, c.row_s / kMicro, c.request_s / kMilli, c.token_s / kMilli);
  return text;
}

std::vector<int> nodes_of_ranks(const Cluster& cluster, int ranks, int nodes) {
  if (ranks < 1 || ranks > cluster.devices)
    fail("ranks: expected at least 1 and at most {}, the devices of {}, got {}", cluster.devices, cluster.name, ranks);
  const int fewest = (ranks + cluster.per_node - 1) / cluster.per_node;
  const int most = std::min(ranks, (cluster.devices + cluster.per_node - 1) / cluster.per_node);
  if (nodes == 0) nodes = fewest;
  if (nodes < fewest || nodes > most)
    fail("nodes: expected {} to {} for {} ranks, as {} has {} devices on a node, got {}", fewest, most, ranks,
         cluster.name, cluster.per_node, nodes);
  std::vector<int> of_ranks;
  for (int rank = 0; rank < ranks; ++rank) of_ranks.push_back(rank * nodes / ranks);
  return of_ranks;
}

}  // namespace foe
