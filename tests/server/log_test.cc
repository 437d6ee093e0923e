#include "server/log.h"

#include <csignal>
#include <fcntl.h>
#include <string>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace foe {
namespace {

using testing::StartsWith;

struct Pipe {
  int reader, writer;

  Pipe() {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    std::signal(SIGPIPE, SIG_IGN);  // as the server
    reader = ends[0];
    writer = ends[1];
  }
  ~Pipe() { close(reader); }
  // Until the message that comes last.
  std::string read_until(const std::string& last) const {
    std::string text;
    char bytes[4096];
    while (!text.ends_with(last)) {
      const ssize_t n = read(reader, bytes, sizeof bytes);
      if (n <= 0) return text;
      text.append(bytes, static_cast<std::size_t>(n));
    }
    return text;
  }
};

TEST(LogWriter, WritesInOrder) {
  const Pipe pipe;
  std::string expected;
  {
    LogWriter writer(pipe.writer);
    for (int i = 0; i < 100; ++i) {
      const std::string line = std::to_string(i) + "\n";
      writer.write(line);
      expected += line;
    }
  }
  EXPECT_EQ(pipe.read_until("99\n"), expected);
}

// The pipe and the writer's memory are full long before the end: a writer that waited would never come back here.
TEST(LogWriter, NeverWaitsForAReaderAndSaysWhatIsLost) {
  const Pipe pipe;
  LogWriter writer(pipe.writer, 1 << 16);
  const std::string line(1000, 'x');
  for (int i = 0; i < 1000; ++i) writer.write(std::to_string(i) + " " + line + "\n");
  std::string text = pipe.read_until(" messages of the log are lost: nobody read it\n");
  EXPECT_THAT(text, StartsWith("0 xxx"));
  // Whole messages, the first ones in order.
  std::size_t at = 0;
  int kept = 0;
  for (; text.compare(at, 5, "foe: ") != 0; ++kept) {
    const std::string expected = std::to_string(kept) + " " + line + "\n";
    ASSERT_EQ(text.substr(at, expected.size()), expected);
    at += expected.size();
  }
  EXPECT_GT(kept, 64);
  EXPECT_EQ(text.substr(at), "foe: " + std::to_string(1000 - kept) + " messages of the log are lost: nobody read it\n");
  writer.write("on again\n");
  EXPECT_EQ(pipe.read_until("on again\n"), "on again\n");
}

TEST(LogWriter, EndsThoughNobodyReads) {
  const Pipe pipe;
  {
    LogWriter writer(pipe.writer);
    writer.write(std::string(1 << 18, 'x'));
  }
  fcntl(pipe.reader, F_SETFL, O_NONBLOCK);
  char byte;
  EXPECT_EQ(read(pipe.reader, &byte, 1), 1);
}

}  // namespace
}  // namespace foe
