#include "server/log/log.h"

#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

namespace foe {
namespace {

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
  // Reads up to the first time that `last` has come, and nothing behind it.
  std::string read_until(const std::string& last) const {
    std::string text;
    char byte;
    while (!text.ends_with(last) && read(reader, &byte, 1) == 1) text += byte;
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

// The pipe and the writer's memory are full long before the end: a writer that waited would never come back here. How
// often there is room for a message again, between others that are lost, depends on when the writer's thread runs.
TEST(LogWriter, NeverWaitsForAReaderAndSaysWhatIsLost) {
  const Pipe pipe;
  LogWriter writer(pipe.writer, 1 << 16);
  const std::string rest = " " + std::string(1000, 'x') + "\n";
  for (int i = 0; i < 1000; ++i) writer.write(std::to_string(i) + rest);
  int kept = 0, lost = 0;
  while (kept + lost < 1000) {
    const std::string line = pipe.read_until("\n");
    int here = 0;
    if (std::sscanf(line.c_str(), "foe: %d messages of the log are lost: nobody read it\n", &here) == 1) {
      ASSERT_GT(here, 0);
      lost += here;
    } else {
      ASSERT_EQ(line, std::to_string(kept + lost) + rest);
      ++kept;
    }
  }
  EXPECT_EQ(kept + lost, 1000);
  EXPECT_GT(kept, 64);
  EXPECT_GT(lost, 0);
  writer.write("on again\n");
  EXPECT_EQ(pipe.read_until("\n"), "on again\n");
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
