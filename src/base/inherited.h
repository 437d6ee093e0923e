// What a process has from whoever started it, and what it owes it at the end.
#pragma once

#include <string>

namespace foe {

// Puts right what would break us: closed standard handles, which the first files that we open would become (they are
// opened on /dev/null); signals that are blocked, so that no child's end and no request to stop would ever be heard;
// and an ignored SIGCHLD, without which nobody learns how a child ended. To be called first, before any thread starts.
void mend_inherited_state();

// Whether SIGHUP ends this process unless it does something else: not under nohup, which ignores it.
bool hangs_up();

// Prints a line on standard error, unless nobody takes it: a process that ends must not wait for a reader that has
// stopped.
void print_error(const std::string& line);

// Writes out what was printed to standard output. Throws Error if anything of it, now or earlier, could not be written:
// a full disk must not look like success.
void finish_output();

}  // namespace foe
