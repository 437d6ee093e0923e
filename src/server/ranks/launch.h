// Starting the processes of the MPI job.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace foe {

// A machine, and how many ranks it has room for.
struct Host {
  std::string name;
  int slots = 1;
};

// Reads Open MPI's "a:2,b,c:4". Throws Error for anything else than names with counts, each name once.
std::vector<Host> parse_hosts(const std::string& hosts);
int slots_of(const std::vector<Host>& hosts);

struct LaunchOptions {
  int ranks = 1;
  std::vector<Host> hosts;               // this machine first; empty: only this machine
  std::vector<std::string> worker_args;  // of `foe worker`, but for its socket
};

// The arguments, program first, that run one worker per rank: the worker itself if there is one rank on this machine,
// else mpirun with the flags that docs/running.md explains.
std::vector<std::string> job_command(const LaunchOptions& options, const std::string& program,
                                     const std::string& socket_path, bool as_root);

// The arguments that run a program which does nothing on another machine, the way the ranks get there.
std::vector<std::string> probe_command(const std::string& host, bool as_root);

// The path of the running program, unless its file has been replaced.
std::string this_program();

// Starts a process in a group of its own, with no input, its standard output and error on the handle `output`, none of
// our other files, and no signal blocked.
// It gets SIGTERM when we die, however that happens; so only the thread that lives as long as the process may call
// this. Throws Error where the system has no process to give. A program that cannot be run is exit status 127.
pid_t spawn(const std::vector<std::string>& command, int output);

}  // namespace foe
