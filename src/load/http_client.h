// An HTTP/1.1 client that passes on the body of a reply piece by piece, and keeps connections for further requests.
//
// All calls come from the thread that runs the io_context, and callbacks run there.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace boost::asio {
class io_context;
}

namespace foe {

struct HttpTarget {
  std::string host, port;
  std::string path;  // goes before the path of each request: empty, or "/..." without a slash at the end
};
// Reads "http://HOST[:PORT][/PATH]"; the port is 80 by default. Throws Error for anything else.
HttpTarget parse_base_url(const std::string& url);

struct HttpCall {
  std::string method, path;
  std::string headers = "";  // more of them, each ending in \r\n
  std::string body = "";
};

struct HttpResult {
  int status = 0;           // 0: no reply came
  std::string retry_after;  // the header Retry-After, cut to a few bytes
  std::string error;        // why the reply is not complete; empty if it is
};

class HttpClient {
 public:
  // Called with each piece of a reply's body. If it returns a text that is not empty, the call ends with that as its
  // error.
  using OnBody = std::function<std::string(int status, std::string_view piece)>;
  using OnEnd = std::function<void(HttpResult)>;

  // Resolves the host. Throws Error if it is unknown. Each call may take `timeout_s`, from connecting to the last byte.
  HttpClient(boost::asio::io_context& io, const HttpTarget& target, double timeout_s);
  ~HttpClient();  // ends all calls; calls no callback any more

  // Starts a call. Nothing is sent twice: there is no retry. `on_end` is called once, after this has returned.
  void send(HttpCall call, OnBody on_body, OnEnd on_end);
  // Ends all calls with an error.
  void cancel();

  struct State;  // what calls share

 private:
  std::shared_ptr<State> state_;
};

// Returns the body of one GET, for which it has an io_context of its own. Throws Error unless the status is 200 and the
// body at most 1 MiB.
std::string http_get(const HttpTarget& target, const std::string& path, const std::string& headers, double timeout_s);

}  // namespace foe
