// Starts the processes of the MPI job.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace foe {

// A machine, and how many ranks it may run.
struct Host {
  std::string name;
  int slots = 1;
};

// Reads a list of hosts as Open MPI writes it: "a:2,b,c:4". Throws Error for anything but names with counts, each name
// once.
std::vector<Host> parse_hosts(const std::string& hosts);
int slots_of(const std::vector<Host>& hosts);

struct LaunchOptions {
  int ranks = 1;
  std::vector<Host> hosts;               // the first is this machine; empty: only this machine
  std::vector<std::string> worker_args;  // arguments of `foe worker`, without its socket
};

// Returns the command, program first, that runs a worker for each rank. For one rank on this machine it is the worker
// itself, otherwise mpirun with the flags that docs/running.md explains.
std::vector<std::string> job_command(const LaunchOptions& options, const std::string& program,
                                     const std::string& socket_path, bool as_root);

// Returns the command that runs a program which does nothing on another machine, started in the same way as ranks.
std::vector<std::string> probe_command(const std::string& host, bool as_root);

// Returns the path of the running program. Once its file has been replaced, this is no longer the path of a file.
// Throws Error if the system does not tell it.
std::string this_program();

// Starts a process in a process group of its own and returns its id. Its standard input is empty, its standard output
// and error go to the handle `output`, it has none of this process's other files, and no signal is blocked. The process
// gets SIGTERM when the thread that called this ends, however that happens, so only a thread that lives as long as this
// process may call it. Throws Error if the system cannot start a process. If the program cannot be run, the exit status
// is 127.
pid_t spawn(const std::vector<std::string>& command, int output);

}  // namespace foe
