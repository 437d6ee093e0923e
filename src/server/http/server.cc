#include "server/http/server.h"

#include <chrono>
#include <exception>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/error.h"
#include "server/http/connection.h"

namespace foe {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

void accept(const std::shared_ptr<HttpServer::State>& state) {
  state->acceptor.async_accept([state](error_code error, tcp::socket socket) {
    if (state->closing) return;
    if (error) {  // most likely there are no file descriptors; some will be free again
      state->retry.expires_after(std::chrono::milliseconds(100));
      return state->retry.async_wait([state](error_code cancelled) {
        if (!cancelled) accept(state);
      });
    }
    // A few connections beyond the limit get a reply that says so; further ones are just closed.
    const std::size_t open = state->connections.size();
    try {
      if (open < state->limits.connections)
        std::make_shared<HttpConnection>(std::move(socket), state)->start();
      else if (open < state->limits.connections + 64)
        std::make_shared<HttpConnection>(std::move(socket), state)->refuse();
    } catch (const std::exception&) {  // out of memory: the connection is closed, too
    }
    accept(state);
  });
}

}  // namespace

const std::string& HttpRequest::header(std::string_view name) const {
  static const std::string kNone;
  for (const auto& [field, value] : headers)
    if (field == name) return value;
  return kNone;
}

HttpServer::HttpServer(asio::io_context& io, const std::string& host, int port, const HttpLimits& limits,
                       HttpHandler handler, HttpGate gate)
    : state_(std::make_shared<State>(io, limits, std::move(handler), std::move(gate))) {
  error_code error;
  const auto address = asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
  if (error) fail("--host: expected an IP address of this machine, got '{}'", host);
  const tcp::endpoint endpoint(address, static_cast<unsigned short>(port));
  tcp::acceptor& acceptor = state_->acceptor;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error)
    fail("cannot listen on {} port {}: {}; choose another --port (0: any free one) or --host", host, port,
         error.message());
  accept(state_);
}

HttpServer::~HttpServer() {
  close();
  // Connections may outlive the server, but must not call its owner's functions any more.
  state_->handler = nullptr;
  state_->gate = nullptr;
  state_->body_room->drop();
  const std::set<HttpConnection*> connections = state_->connections;
  for (HttpConnection* connection : connections) connection->close();
}

int HttpServer::port() const {
  return state_->acceptor.local_endpoint().port();
}

void HttpServer::close() {
  if (std::exchange(state_->closing, true)) return;
  error_code ignored;
  state_->acceptor.close(ignored);
  state_->retry.cancel();
  for (HttpConnection* connection : std::set<HttpConnection*>(state_->connections))
    if (connection->waiting()) connection->close();
}

std::size_t HttpServer::replying() const {
  std::size_t count = 0;
  for (const HttpConnection* connection : state_->connections) count += connection->replying();
  return count;
}

std::size_t HttpServer::unread() const {
  return state_->unread;
}

}  // namespace foe
