#!/usr/bin/env python3
"""An mpirun whose ranks die of a request: each time they are given it, before it has a token.

    deadly_mpirun.py 1,2,3 /usr/bin/mpirun ARGUMENTS... --socket PATH

It stands between the front end and rank 0, and kills the ranks when the token ids 1, 2, 3 pass by.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from serve_test import command_of, descendants


def kill_ranks():
    for pid in descendants(os.getpid()):
        if b"worker" in command_of(pid) and not command_of(pid)[0].endswith(b"mpirun"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def forward(source, target, deadly=None):
    seen = b""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            seen = seen[-len(deadly or b""):] + data
            if deadly and deadly in seen:
                kill_ranks()
                break
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def serve(listener, path, deadly):
    rank, _ = listener.accept()
    front_end = socket.socket(socket.AF_UNIX)
    front_end.connect(path)
    threading.Thread(target=forward, args=(rank, front_end), daemon=True).start()
    forward(front_end, rank, deadly)


def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group gets it: mpirun ends, and then we do
    at = sys.argv.index("--socket") + 1
    ids = [int(token) for token in sys.argv[1].split(",")]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Path(folder) / "link"))
        listener.listen(1)
        threading.Thread(target=serve, args=(listener, sys.argv[at], struct.pack(f"={len(ids)}i", *ids)),
                         daemon=True).start()
        command = sys.argv[2:at] + [str(Path(folder) / "link")]
        mpirun = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        return mpirun.wait()


if __name__ == "__main__":
    sys.exit(main())
