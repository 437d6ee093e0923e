// The loop in which the front end handles its events.
#pragma once

namespace boost::asio {
class io_context;
}

namespace foe {

// Runs until io.stop(). If memory runs out while one event is handled, only that event fails. What waits for it ends by
// its time limit.
void run_to_the_end(boost::asio::io_context& io);

}  // namespace foe
