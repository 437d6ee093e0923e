#include "server/ranks/launch.h"

#include <algorithm>
#include <csignal>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;
using testing::ThrowsMessage;

TEST(Hosts, HaveNamesAndSlots) {
  EXPECT_EQ(slots_of(parse_hosts("a")), 1);
  EXPECT_EQ(slots_of(parse_hosts("a:3")), 3);
  const std::vector<Host> hosts = parse_hosts("a:2,b,c.example:4");
  ASSERT_EQ(hosts.size(), 3u);
  EXPECT_EQ(hosts[2].name, "c.example");
  EXPECT_EQ(hosts[2].slots, 4);
  EXPECT_EQ(slots_of(hosts), 7);
  for (const std::string bad :
       {"", ",", "a,", ":2", "a:", "a:0", "a:-1", "a:x", "a:2x", "a:99999999999", "a:2,,b", "a:1,b,a:2"})
    EXPECT_THAT(
        [&] { parse_hosts(bad); },
        ThrowsMessage<Error>(
            "--hosts: expected different host names, each with a number of ranks, as in a:2,b:2, got '" + bad + "'"));
}

TEST(JobCommand, RunsOneRankWithoutMpirun) {
  const LaunchOptions options{.ranks = 1, .hosts = {}, .worker_args = {"MODEL", "--chunk", "7"}};
  EXPECT_THAT(job_command(options, "/bin/foe", "/tmp/link", true),
              ElementsAre("/bin/foe", "worker", "MODEL", "--chunk", "7", "--socket", "/tmp/link"));
}

TEST(JobCommand, RunsSeveralRanksUnderMpirun) {
  LaunchOptions options{.ranks = 2, .hosts = {}, .worker_args = {"MODEL"}};
  const std::vector<std::string> command = job_command(options, "/bin/foe", "/tmp/link", false);
  EXPECT_EQ(command[0], "mpirun");
  EXPECT_EQ((std::vector<std::string>{command.end() - 5, command.end()}),
            (std::vector<std::string>{"/bin/foe", "worker", "MODEL", "--socket", "/tmp/link"}));
  EXPECT_THAT(command, Contains("self,vader"));
  EXPECT_THAT(command, Not(Contains("--allow-run-as-root")));
  EXPECT_THAT(job_command(options, "/bin/foe", "/tmp/link", true), Contains("--allow-run-as-root"));

  options.hosts = {{"a", 1}, {"b", 1}};
  const std::vector<std::string> remote = job_command(options, "/bin/foe", "/tmp/link", false);
  const auto host = std::find(remote.begin(), remote.end(), "--host");
  ASSERT_NE(host, remote.end());
  EXPECT_EQ(host[1], "a:1,b:1");
  EXPECT_THAT(remote, Contains("self,vader,tcp"));
}

int exit_status(const std::vector<std::string>& command) {
  int status = 0;
  const pid_t child = spawn(command, STDERR_FILENO);
  EXPECT_EQ(getpgid(child), child);
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Spawn, RunsAProgramWithoutOurInputAndFiles) {
  EXPECT_EQ(exit_status({"sh", "-c", "exit 7"}), 7);
  EXPECT_EQ(exit_status({"sh", "-c", "read line && exit 1; exit 2"}), 2);
  EXPECT_EQ(exit_status({"/nowhere/no-such-program"}), 127);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(exit_status({"sh", "-c", "test -e /proc/self/fd/" + std::to_string(ends[1])}), 1);
  close(ends[0]);
  close(ends[1]);
}

TEST(Spawn, PutsWhatAProgramPrintsOnTheHandle) {
  int ends[2], status = 0;
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = spawn({"sh", "-c", "echo out; echo error >&2"}, ends[1]);
  close(ends[1]);
  std::string printed;
  for (char byte; read(ends[0], &byte, 1) == 1;) printed += byte;
  close(ends[0]);
  EXPECT_EQ(printed, "out\nerror\n");
  EXPECT_EQ(waitpid(child, &status, 0), child);
}

// A child that inherits blocked signals could not be ended.
TEST(Spawn, BlocksNoSignal) {
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const int status = exit_status({"sh", "-c", "grep -q '^SigBlk:[[:space:]]*0*$' /proc/self/status"});
  sigprocmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace foe
