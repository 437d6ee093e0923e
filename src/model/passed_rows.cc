#include "model/passed_rows.h"

#include <utility>
#include <vector>

#include "kernels/formats/wire_format.h"
#include "model/pipeline.h"

namespace foe {
namespace {

// Calls f(floats, bytes) for r, and for the update of each stream that is passed with it.
template <typename F>
void for_each_part(Step& s, int layer, std::byte* at, const F& f) {
  const std::size_t count = static_cast<std::size_t>(s.T) * s.model.config.hidden_size;
  for (int i = 0; i < passed_vectors(s.model.config, s.model.share(), layer); ++i, at += wire_bytes(s.a.wire, count))
    f(i == 0 ? s.state.r_TD.data() : s.update_TD(i - 1), count, at);
}

std::size_t passed_bytes(const Step& s, int layer) {
  return passed_vectors(s.model.config, s.model.share(), layer) *
         wire_bytes(s.a.wire, static_cast<std::size_t>(s.T) * s.model.config.hidden_size);
}

// Runs an exchange whose time and bytes count as those of passing rows.
template <typename F>
void counted(Step& s, const F& exchange) {
  const PartClock clock(s, s.a.stats.passing);
  const CommCounter before = s.grid.messages().counters().total();
  exchange(s.grid.messages());
  s.exchanged = s.grid.messages().counters().total() - before;
}

}  // namespace

void pass_rows(Step& s, int layer) {
  counted(s, [&](Communicator& comm) {
    std::vector<std::byte> message(passed_bytes(s, layer));
    for_each_part(s, layer, message.data(),
                  [&](const float* x, std::size_t count, std::byte* to) { encode(s.a.wire, x, count, to); });
    comm.send(rank_of_stage(s.model.placement, s.model.rank, 1), std::move(message));
  });
}

void receive_rows(Step& s, int layer) {
  counted(s, [&](Communicator& comm) {
    std::vector<std::byte> message;
    comm.receive(rank_of_stage(s.model.placement, s.model.rank, -1), passed_bytes(s, layer), message);
    for_each_part(s, layer, message.data(),
                  [&](float* x, std::size_t count, const std::byte* from) { decode(s.a.wire, from, count, x); });
  });
}

}  // namespace foe
