#!/usr/bin/env python3
"""An mpirun whose ranks die while they answer.

    deadly_mpirun.py 1,2,3 /usr/bin/mpirun ARGUMENTS... --socket PATH
    deadly_mpirun.py @FILE /usr/bin/mpirun ARGUMENTS... --socket PATH

It stands between the front end and rank 0. All ranks die when the token ids 1, 2, 3 pass by to them: each time they are given
such a request, before it has a token. Or a rank dies when so many tokens have passed by to the front end: the first line of
FILE, which is taken off with the first token that comes, has their number and the rank.
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

from serve_test import command_of, descendants, rank_of

NEW_TOKENS = 1  # the kind of a message from the ranks: link.h


def kill_ranks(rank=None):
    for pid in descendants(os.getpid()):
        if (b"worker" in command_of(pid) and not command_of(pid)[0].endswith(b"mpirun")
                and rank in (None, rank_of(pid))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class DeadlyIds:
    """Kills all ranks when these bytes would pass by."""

    def __init__(self, ids):
        self.bytes = struct.pack(f"={len(ids)}i", *ids)
        self.seen = b""

    def pass_on(self, data):
        """Returns what passes. Nothing does when the ranks are dead."""
        self.seen = self.seen[-len(self.bytes):] + data
        if self.bytes not in self.seen:
            return data
        kill_ranks()
        return b""


class CountedTokens:
    """Kills a rank when so many tokens have passed by. What the ranks have said behind them does not pass."""

    def __init__(self, file):
        self.file = file
        self.left = self.rank = None
        self.seen = b""  # of the message that is not whole yet

    def pass_on(self, data):
        passed = len(self.seen)  # bytes that have, less those of whole messages
        self.seen += data
        while self.left != 0 and len(self.seen) >= 4:
            size = 4 + struct.unpack_from("=I", self.seen)[0]
            if len(self.seen) < size:
                break
            if self.seen[4] == NEW_TOKENS:
                self.count(struct.unpack_from("=I", self.seen, 5)[0])
            self.seen = self.seen[size:]
            passed -= size
        return data if self.left != 0 else data[:max(0, -passed)]

    def count(self, tokens):
        lines = self.file.read_text().splitlines(keepends=True) if self.left is None and self.file.exists() else []
        if lines:
            self.left, self.rank = map(int, lines[0].split())
            self.file.write_text("".join(lines[1:]))
        if self.left is None:
            return
        self.left = max(0, self.left - tokens)
        if self.left == 0:
            kill_ranks(self.rank)


def forward(source, target, watch=None):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if watch:
                data = watch.pass_on(data)
            if not data:
                break
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def serve(listener, path, deadly):
    rank, _ = listener.accept()
    front_end = socket.socket(socket.AF_UNIX)
    front_end.connect(path)
    counted = CountedTokens(Path(deadly[1:])) if deadly.startswith("@") else None
    ids = None if counted else DeadlyIds([int(token) for token in deadly.split(",")])
    threading.Thread(target=forward, args=(rank, front_end, counted), daemon=True).start()
    forward(front_end, rank, ids)


def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group gets it: mpirun ends, and then we do
    at = sys.argv.index("--socket") + 1
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Path(folder) / "link"))
        listener.listen(1)
        threading.Thread(target=serve, args=(listener, sys.argv[at], sys.argv[1]), daemon=True).start()
        command = sys.argv[2:at] + [str(Path(folder) / "link")]
        mpirun = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        return mpirun.wait()


if __name__ == "__main__":
    sys.exit(main())
