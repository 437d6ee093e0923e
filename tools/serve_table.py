#!/usr/bin/env python3
"""Prints what bench/serve.sh has measured, and writes it to OUT/summary.json.

    tools/serve_table.py OUT
    tools/serve_table.py OUT --overload-rate    # only ten times the peak goodput, in requests per second
"""

import argparse
import json
from pathlib import Path

OVERLOAD = 10


def load(out: Path, pattern: str) -> list[dict]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(out.glob(pattern))]


def sweep(out: Path) -> list[dict]:
    keys = ("request_rate", "request_throughput", "output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms",
            "p99_tpot_ms", "median_e2el_ms", "p99_e2el_ms", "failed", "generator_cpu_share")
    runs = [{"workload": name} | {key: run.get(key) for key in keys}
            for name in ("paper", "random") for run in load(out, f"sweep-{name}-*qps.json")]
    return sorted(runs, key=lambda run: (run["workload"], run["request_rate"]))


def peak_of(out: Path) -> dict | None:
    return max(load(out, "peak-*qps.json"), key=lambda run: run["request_goodput"], default=None)


def overload(out: Path) -> dict | None:
    peak, runs, watched = peak_of(out), load(out, "overload-*qps.json"), load(out, "overload-processes.json")
    if not (peak and runs and watched):
        return None
    (run,), (watched,) = runs, watched
    memory = watched["memory"]
    first = memory[:max(1, len(memory) // 4)]
    return {
        "peak_goodput": peak["request_goodput"], "peak_rate": peak["request_rate"],
        "peaks": {str(r["request_rate"]): r["request_goodput"]
                  for r in sorted(load(out, "peak-*qps.json"), key=lambda r: r["request_rate"])},
        "offered_rate": run["request_rate"], "seconds": run["duration"],
        "goodput": run["request_goodput"], "goodput_of_peak": run["request_goodput"] / peak["request_goodput"],
        "answered_per_s": run["request_throughput"],
        "completed": run["completed"], "failed_by_status": run["failures_by_status"], "retry_after": run["retry_after"],
        "median_ttft_ms": run["median_ttft_ms"], "p99_ttft_ms": run["p99_ttft_ms"], "refusal_ms": run["refusal_ms"],
        "generator_cpu_percent": 100 * run["generator_cpu_share"], "send_delay_ms": run["send_delay_ms"],
        "server_cpu_percent": watched["cpu_percent"], "machine_cpu_percent": watched["machine_cpu_percent"],
    } | {f"{key}_{when}": function(sample[f"{key}_bytes"] for sample in samples) for key in ("rss", "anonymous")
         for when, function, samples in (("first_quarter", max, first), ("most", max, memory))}


def idle(out: Path) -> dict | None:
    for run in load(out, "idle.json"):
        return {key: run[key] for key in ("seconds", "cpu_percent", "cpu_percent_by_process")}
    return None


def offline(out: Path) -> list[dict]:
    return [{key: run[key] for key in ("ranks", "threads_per_rank", "requests", "output_tokens_per_second")} |
            {"decode_tokens_per_s": run["decode"]["tokens"] / run["decode"]["seconds"],
             "share_of_roofline": run["decode"]["share_of_roofline"],
             "read_bytes_per_second": run["decode"]["read_bytes_per_second"],
             "flops_per_second": run["decode"]["flops_per_second"]}
            for run in load(out, "offline-*.json")]


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def print_sweep(runs: list[dict]) -> None:
    print("| workload | requests/s | answered/s | tokens/s | TTFT p50, p99 ms | TPOT p50, p99 ms | E2E p50, p99 ms | failed |")
    print("|---|---|---|---|---|---|---|---|")
    for run in runs:
        pairs = [f"{run[f'median_{metric}_ms']:.1f}, {run[f'p99_{metric}_ms']:.1f}" for metric in ("ttft", "tpot", "e2el")]
        print(f"| {run['workload']} | {run['request_rate']:g} | {run['request_throughput']:.2f} | "
              f"{run['output_throughput']:.0f} | {' | '.join(pairs)} | {run['failed']} |")


def print_overload(o: dict) -> None:
    rows = [
        ("goodput by rate", ", ".join(f"{rate}: {good:.3f}" for rate, good in o["peaks"].items())),
        ("peak goodput", f"{o['peak_goodput']:.3f} requests/s"),
        ("offered", f"{o['offered_rate']:.3g} requests/s for {o['seconds']:.0f} s"),
        ("goodput then", f"{o['goodput']:.3f} requests/s, {100 * o['goodput_of_peak']:.0f} % of the peak"),
        ("answered, refused", f"{o['completed']}, {o['failed_by_status']}, Retry-After {o['retry_after']}"),
        ("time to refusal", f"median {o['refusal_ms']['median']:.1f} ms, p99 {o['refusal_ms']['p99']:.1f} ms"),
        ("TTFT of what is answered", f"median {o['median_ttft_ms']:.0f} ms, p99 {o['p99_ttft_ms']:.0f} ms"),
        ("resident, all processes", f"{megabytes(o['rss_most'])}; in the first quarter {megabytes(o['rss_first_quarter'])}"),
        ("of it anonymous", f"{megabytes(o['anonymous_most'])}; in the first quarter {megabytes(o['anonymous_first_quarter'])}"),
        ("CPU", f"server {o['server_cpu_percent']:.0f} % of a core, generator {o['generator_cpu_percent']:.1f} %, which "
                f"sent at most {o['send_delay_ms']['max']:.0f} ms late; the machine {o['machine_cpu_percent']:.0f} %"),
    ]
    for name, value in rows:
        print(f"{name:26} {value}")


def print_idle(run: dict) -> None:
    each = ", ".join(f"{name} {percent:.2f}" for name, percent in run["cpu_percent_by_process"].items())
    print(f"idle for {run['seconds']:.0f} s: {run['cpu_percent']:.2f} % of a core ({each})")


def print_offline(runs: list[dict]) -> None:
    for run in runs:
        print(f"{run['requests']} requests, {run['ranks']} x {run['threads_per_rank']} threads: decoding "
              f"{run['decode_tokens_per_s']:.1f} tokens/s, {100 * run['share_of_roofline']:.0f} % of the roofline "
              f"({run['read_bytes_per_second'] / 1e9:.1f} GB/s, {run['flops_per_second'] / 1e9:.0f} GFLOP/s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that bench/serve.sh wrote")
    parser.add_argument("--overload-rate", action="store_true",
                        help="print only ten times the peak goodput, in requests per second")
    flags = parser.parse_args()
    if flags.overload_rate:
        peak = peak_of(flags.out)
        if not peak or not peak["request_goodput"]:
            raise SystemExit("serve_table: expected a run with requests that were answered in time, found none")
        return print(f"{OVERLOAD * peak['request_goodput']:.3g}")
    printers = {sweep: print_sweep, overload: print_overload, idle: print_idle, offline: print_offline}
    summary = {part.__name__: part(flags.out) for part in printers}
    for part, show in printers.items():
        if summary[part.__name__]:
            show(summary[part.__name__])
            print()
    (flags.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
