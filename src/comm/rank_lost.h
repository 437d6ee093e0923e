// What a call of a Communicator throws if a peer has died, or has been silent for longer than the timeout.
#pragma once

#include "base/error.h"

namespace foe {

class RankLost : public Error {
 public:
  using Error::Error;
};

}  // namespace foe
