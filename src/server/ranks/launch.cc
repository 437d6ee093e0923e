#include "server/ranks/launch.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <string_view>
#include <unistd.h>

#include <sys/prctl.h>

#include "base/error.h"

namespace foe {

std::vector<Host> parse_hosts(const std::string& hosts) {
  std::vector<Host> parsed;
  for (std::string_view left = hosts;;) {
    const std::string_view host = left.substr(0, left.find(','));
    const std::size_t colon = host.find(':');
    const std::string name(host.substr(0, colon));
    int slots = 1;
    bool good =
        !name.empty() && std::none_of(parsed.begin(), parsed.end(), [&](const Host& h) { return h.name == name; });
    if (colon != host.npos) {
      const char* end = host.data() + host.size();
      const auto [last, error] = std::from_chars(host.data() + colon + 1, end, slots);
      good = good && error == std::errc() && last == end && slots >= 1 && slots <= 4096;
    }
    if (!good)
      fail("--hosts: expected different host names, each with a number of ranks, as in a:2,b:2, got '{}'", hosts);
    parsed.push_back({name, slots});
    if (host.size() == left.size()) return parsed;
    left.remove_prefix(host.size() + 1);
  }
}

int slots_of(const std::vector<Host>& hosts) {
  int slots = 0;
  for (const Host& host : hosts) slots += host.slots;
  return slots;
}

std::string this_program() {
  std::error_code error;
  const std::string path = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) fail("/proc/self/exe: expected the path of this program, got: {}", error.message());
  return path;
}

namespace {

std::string host_list(const std::vector<Host>& hosts) {
  std::string list;
  for (const Host& host : hosts) list += fmt::format("{}{}:{}", list.empty() ? "" : ",", host.name, host.slots);
  return list;
}

}  // namespace

std::vector<std::string> job_command(const LaunchOptions& options, const std::string& program,
                                     const std::string& socket_path, bool as_root) {
  std::vector<std::string> command;
  const auto add = [&](std::initializer_list<std::string> words) { command.insert(command.end(), words); };
  if (options.ranks > 1 || !options.hosts.empty()) {
    add({"mpirun", "-n"});
    command.push_back(std::to_string(options.ranks));
    if (as_root) add({"--allow-run-as-root"});
    if (!options.hosts.empty()) add({"--host", host_list(options.hosts)});
    add({"--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"});
    add({"--mca", "pml", "ob1", "--mca", "btl", options.hosts.empty() ? "self,vader" : "self,vader,tcp"});
    add({"--mca", "btl_vader_single_copy_mechanism", "none"});
    if (options.hosts.empty()) add({"--mca", "plm", "isolated"});
  }
  command.push_back(program);
  command.push_back("worker");
  command.insert(command.end(), options.worker_args.begin(), options.worker_args.end());
  add({"--socket", socket_path});
  return command;
}

std::vector<std::string> probe_command(const std::string& host, bool as_root) {
  // mpirun's messages about a host that does not answer are dropped, because the server's log says it once.
  std::vector<std::string> command{"sh", "-c", "exec \"$@\" 2>/dev/null", "sh", "mpirun", "-n", "1"};
  if (as_root) command.push_back("--allow-run-as-root");
  command.insert(command.end(), {"--host", host, "--bind-to", "none", "true"});
  return command;
}

pid_t spawn(const std::vector<std::string>& command, int output) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0)
    fail("cannot start a process: {} (a limit of processes, as of ulimit -u, or of memory)", std::strerror(errno));
  if (child > 0) {
    setpgid(child, child);  // both processes do this, so that the group exists when either goes on
    return child;
  }
  // After fork() only system calls are allowed here, as other threads may have held locks.
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // the parent died before prctl()
  signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  close_range(STDERR_FILENO + 1, ~0u, 0);
  execvp(argv[0], argv.data());
  const char message[] = "foe serve: cannot run ";
  for (const char* part : {message, const_cast<const char*>(argv[0]), "\n"})
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
  _exit(127);
}

}  // namespace foe
