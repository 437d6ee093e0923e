#!/usr/bin/env python3
"""Watches a process and all below it: CPU time, and memory as time goes on. Linux only.

    tools/watch_processes.py PID --seconds 30 --json idle.json      # or until Ctrl-C, or until it ends

`rss_bytes` counts mapped files, such as weights, once for each process that has them; `anonymous_bytes` is what the
processes have allocated. `machine_cpu_percent` is the CPU of all that runs on the machine: it tells who else does.
"""

import argparse
import contextlib
import json
import os
import signal
import time
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def stat_of(pid: int) -> tuple[str, list[str]]:
    """Returns the name of a process, and the fields behind it."""
    head, _, rest = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")
    return head.partition("(")[2], rest.split()


def family(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children.setdefault(int(stat_of(int(folder.name))[1][1]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> dict[str, float]:
    """Returns CPU time of each process, by "name pid"."""
    found = {}
    for pid in family(root):
        with contextlib.suppress(OSError):
            name, fields = stat_of(pid)
            found[f"{name} {pid}"] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return found


def machine_cpu_seconds() -> float:
    user, nice, system, _, _, irq, soft_irq = map(int, Path("/proc/stat").read_text("utf-8").split()[1:8])
    return (user + nice + system + irq + soft_irq) / TICKS_PER_S


def memory(root: int) -> dict[str, int]:
    total = {"rss_bytes": 0, "anonymous_bytes": 0}
    for pid in family(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
                for key, name in (("VmRSS:", "rss_bytes"), ("RssAnon:", "anonymous_bytes")):
                    if line.startswith(key):
                        total[name] += int(line.split()[1]) << 10
    return total


def watch(pid: int, seconds: float, every_s: float) -> dict:
    ending: list[int] = []
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, lambda *_: ending.append(1))
    start = time.monotonic()
    before = after = cpu_seconds(pid)
    machine_before = machine_cpu_seconds()
    samples = []
    while True:
        passed = time.monotonic() - start
        samples.append({"seconds": round(passed, 2)} | memory(pid))
        if ending or passed >= seconds or not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(min(every_s, max(0.0, seconds - passed)))
    if now := cpu_seconds(pid):
        after = now
    passed = time.monotonic() - start
    percent = {name: 100 * (used - before.get(name, 0)) / passed for name, used in after.items()}
    return {"seconds": passed, "cpu_percent": sum(percent.values()), "cpu_percent_by_process": percent,
            "machine_cpu_percent": 100 * (machine_cpu_seconds() - machine_before) / passed, "memory": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pid", type=int, help="process to watch, with all below it")
    parser.add_argument("--seconds", type=float, default=float("inf"),
                        help="how long to watch (default: until the process ends)")
    parser.add_argument("--every", type=float, default=1, help="seconds between samples of memory (default: %(default)s)")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    flags = parser.parse_args()
    flags.json.write_text(json.dumps(watch(flags.pid, flags.seconds, flags.every), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
