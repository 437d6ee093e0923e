// Collects what all ranks have routed in a step, on rank 0, and writes it to a record.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "core/batch.h"
#include "model/activations.h"
#include "trace/route_writer.h"

namespace foe {

// Returns what a record of the model says of where it comes from.
RouteOrigin route_origin(const Model& model);

class RouteRecorder {
 public:
  // `writer` may be null, and must outlive this.
  void write_to(RouteWriter* writer) { writer_ = writer; }
  // Collective, after forward(batch); it is not counted. On rank 0, `sequences` has the number of each sequence of the
  // batch; empty: 0, 1, ...
  void take(const Model& model, const Batch& batch, std::span<const std::int64_t> sequences, const Activations& a,
            Communicator& comm);

 private:
  void join(const Placement& placement, const RouteForm& form, std::span<const std::size_t> counts);

  RouteWriter* writer_ = nullptr;
  std::int64_t step_ = 0;
  std::vector<std::int32_t> own_, all_;
};

}  // namespace foe
