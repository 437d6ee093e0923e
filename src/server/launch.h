// Starting the processes of the MPI job.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace foe {

struct LaunchOptions {
  int ranks = 1;
  std::string hosts;                     // Open MPI's "a:2,b:2"; empty: this machine
  std::vector<std::string> worker_args;  // of `foe worker`, but for its socket
};

// The arguments, program first, that run one worker per rank: the worker itself if there is one rank on this machine,
// else mpirun with the flags that docs/running.md explains.
std::vector<std::string> job_command(const LaunchOptions& options, const std::string& program,
                                     const std::string& socket_path, bool as_root);

// The ranks that "a:2,b,c:4" has slots for. Throws Error for anything else than names with counts.
int slots_of(const std::string& hosts);

// The path of the running program.
std::string this_program();

// Starts a process in a group of its own, with no input, its output on our standard error, and none of our other files.
// It gets SIGTERM when we die, however that happens; so only the thread that lives as long as the process may call
// this. Throws Error where the system has no process to give. A program that cannot be run is exit status 127.
pid_t spawn(const std::vector<std::string>& command);

}  // namespace foe
