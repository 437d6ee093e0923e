#include "server/launch.h"

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

int slots_of(const std::string& hosts) {
  int slots = 0;
  for (std::string_view left = hosts;;) {
    const std::string_view host = left.substr(0, left.find(','));
    const std::size_t colon = host.find(':');
    int count = 1;
    bool good = !host.empty() && colon != 0;
    if (colon != host.npos) {
      const char* end = host.data() + host.size();
      const auto [last, error] = std::from_chars(host.data() + colon + 1, end, count);
      good = good && error == std::errc() && last == end && count >= 1 && count <= 4096;
    }
    if (!good) fail("--hosts: expected names with counts, as in a:2,b:2, got '{}'", hosts);
    slots += count;
    if (host.size() == left.size()) return slots;
    left.remove_prefix(host.size() + 1);
  }
}

std::string this_program() {
  std::error_code error;
  const std::string path = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) fail("/proc/self/exe: expected the path of this program, got: {}", error.message());
  return path;
}

std::vector<std::string> job_command(const LaunchOptions& options, const std::string& program,
                                     const std::string& socket_path, bool as_root) {
  std::vector<std::string> command;
  const auto add = [&](std::initializer_list<std::string> words) { command.insert(command.end(), words); };
  if (options.ranks > 1 || !options.hosts.empty()) {
    add({"mpirun", "-n"});
    command.push_back(std::to_string(options.ranks));
    if (as_root) add({"--allow-run-as-root"});
    if (!options.hosts.empty()) add({"--host", options.hosts});
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

pid_t spawn(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) fail("fork: expected a process, got: {}", std::strerror(errno));
  if (child > 0) {
    setpgid(child, child);  // here too: whoever is first, the group is there when we return
    return child;
  }
  // Only what may follow a fork: system calls.
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // the parent died before that
  signal(SIGPIPE, SIG_DFL);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  close_range(STDERR_FILENO + 1, ~0u, 0);
  execvp(argv[0], argv.data());
  const char message[] = "foe serve: cannot run ";
  for (const char* part : {message, const_cast<const char*>(argv[0]), "\n"})
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) break;
  _exit(127);
}

}  // namespace foe
