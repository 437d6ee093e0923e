#include "server/event_loop.h"

#include <new>

#include <boost/asio/io_context.hpp>
#include <spdlog/spdlog.h>

namespace foe {

void run_to_the_end(boost::asio::io_context& io) {
  for (;;) {
    try {
      io.run();
      return;
    } catch (const std::bad_alloc&) {
      spdlog::error("out of memory: an event was dropped, and what waits for it ends by its time limit");
    }
  }
}

}  // namespace foe
