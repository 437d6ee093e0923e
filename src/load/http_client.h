// An HTTP/1.1 client that hears of a reply's body piece by piece, and keeps connections for the next request.
//
// Everything runs on the thread that runs the io_context.
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
  std::string path;  // before that of each request; empty, or "/..." without a slash at the end
};
// "http://HOST[:PORT][/PATH]", port 80 if there is none. Throws Error for anything else.
HttpTarget parse_base_url(const std::string& url);

struct HttpCall {
  std::string method, path;
  std::string headers = "";  // more of them, each ending in \r\n
  std::string body = "";
};

struct HttpResult {
  int status = 0;           // 0: no reply came
  std::string retry_after;  // that header, cut to a few bytes
  std::string error;        // why the reply did not come to its end; empty: it did
};

class HttpClient {
 public:
  // Called with each piece of a reply's body. What it returns, unless empty, ends the call as its error.
  using OnBody = std::function<std::string(int status, std::string_view piece)>;
  using OnEnd = std::function<void(HttpResult)>;

  // Looks the host up. Throws Error if there is none. A call may take `timeout_s`, from connecting to the last byte.
  HttpClient(boost::asio::io_context& io, const HttpTarget& target, double timeout_s);
  ~HttpClient();  // as cancel(); calls nothing any more

  // Nothing is sent twice. `on_end` is called once, never from within this.
  void send(HttpCall call, OnBody on_body, OnEnd on_end);
  // Ends all calls there are, with an error.
  void cancel();

  struct State;  // what calls share

 private:
  std::shared_ptr<State> state_;
};

// One GET, with an io_context of its own. Throws Error unless the answer is 200 and at most 1 MiB.
std::string http_get(const HttpTarget& target, const std::string& path, const std::string& headers, double timeout_s);

}  // namespace foe
