// What a process has inherited from the process that started it, and what it reports to it at its end.
#pragma once

#include <string>

namespace foe {

// Repairs what would break this process. Standard handles that are closed are opened on /dev/null, because the first
// files that we open would otherwise take their numbers. Blocked signals are unblocked, because otherwise the end of a
// child and requests to stop would not be noticed. SIGCHLD is no longer ignored, because otherwise the status of a
// child could not be read. To be called first in main(), before any thread starts.
void mend_inherited_state();

// Whether SIGHUP should end this process. Returns false under nohup, which sets the signal to be ignored.
bool hangs_up();

// Prints a line on standard error, but waits for its reader at most two seconds: a process that ends must not hang
// because nobody reads.
void print_error(const std::string& line);

// Flushes standard output. Throws Error if anything printed there, now or earlier, could not be written: a full disk
// must not look like success.
void finish_output();

}  // namespace foe
