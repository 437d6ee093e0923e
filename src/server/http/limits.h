// The limits of the HTTP server.
#pragma once

#include <cstddef>

namespace foe {

// The quotas that protect the server from slow, large and many clients.
struct HttpLimits {
  std::size_t header_bytes = 16 << 10;
  std::size_t body_bytes = 4 << 20;
  std::size_t total_body_bytes = 64 << 20;  // bodies of all requests together; further ones wait in line
  std::size_t connections = 512;
  // While all replies together have more than total_unread_bytes in memory, streams whose client has not read more than
  // unread_bytes are ended.
  std::size_t unread_bytes = 4 << 20;
  std::size_t total_unread_bytes = 256 << 20;
  int request_seconds = 30;  // for a whole request to come, or for a client to take some more of its reply
  int idle_seconds = 75;     // between requests on one connection
};

}  // namespace foe
