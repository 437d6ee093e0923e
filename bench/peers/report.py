"""What measurements beside peers come to: bytes and operations that a model cannot do without, spreads, ratios, tables."""

import json
from pathlib import Path


def part_of(name: str) -> str:
    """Returns the part of a model that a tensor of a model folder belongs to, converted ones included."""
    if "norm" in name:
        return "norms"
    if "embed_tokens" in name:
        return "embedding"
    if name.startswith("lm_head"):
        return "head"
    if ".experts." in name or any(f".mlp.{matrix}_proj" in name for matrix in ("gate", "up", "down")):
        return "experts"  # a dense layer is one that each token selects
    return "router" if ".mlp.gate." in name else "attention"


def folder_parts(folder: Path) -> dict[str, int]:
    """Returns the bytes of each part in the folder's files."""
    parts: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                parts[part_of(name)] = parts.get(part_of(name), 0) + end - begin
    return parts if "head" in parts else parts | {"head": parts["embedding"], "embedding": 0}  # one matrix is both


def experts_touched(config: dict, tokens: int) -> float:
    """Returns the share of a layer's experts that some of the tokens select, in expectation over equally likely selections."""
    experts = config.get("num_experts") or 1
    selected = config.get("num_experts_per_tok") or 1
    return 1 - (1 - selected / experts) ** tokens


def decode_bytes(config: dict, parts: dict[str, int], sequences: int, context: float) -> float:
    """Returns what a step must read: all weights but those of the embedding and of experts that nobody selects, and the KV
    cache, 16 bits an element."""
    weights = sum(parts.get(part, 0) for part in ("attention", "router", "head", "norms"))
    weights += parts["experts"] * experts_touched(config, sequences)
    elements = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    return weights + 2 * elements * context * sequences


def prefill_operations(config: dict, tokens: int) -> float:
    """Returns multiplications and additions of a prompt whose last token alone needs logits."""
    hidden, heads, kv_heads, head_dim = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads",
                                                                  "head_dim"))
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    layer = hidden * head_dim * (2 * heads + 2 * kv_heads) + hidden * (config.get("num_experts") or 0)
    layer += 3 * hidden * width * (config.get("num_experts_per_tok") or 1)
    attention = heads * head_dim * tokens * (tokens + 1)  # scores and values of half a square
    return 2 * (config["num_hidden_layers"] * (layer * tokens + attention) + hidden * config["vocab_size"])


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values: list[float]) -> float:
    return percentile(values, 0.5)


# By what a system multiplies ("arithmetic"): the limits of the machine, of which the fastest counts. Tile registers (AMX) have
# their own; where there are none, bf16 is multiplied as f32.
PEAKS = {"f32": ["flops_per_second"], "bf16": ["flops_per_second", "tile_flops_per_second"],
         "integers": ["dots_per_second", "tile_dots_per_second"]}  # fmt: skip


def least_seconds(config: dict, system: dict, point: dict, limits: dict, repetitions: int) -> float | None:
    """Returns the least time of a step: decoding by what memory reads, prefill by what arithmetic does."""
    if point["load"] == "decode":
        # Steps after the positions and one step: the token at position p attends to p + 1.
        context = point["positions"] + 1 + (repetitions + 1) / 2
        return decode_bytes(config, system["parts"], point["sequences"], context) / limits["read_bytes_per_second"]
    peak = max(limits.get(key) or 0 for key in PEAKS[system["arithmetic"]])
    return prefill_operations(config, point["tokens"]) / peak if peak else None


def point_name(point: dict) -> str:
    if point["load"] == "prefill":
        return f"prefill {point['tokens']:,}"
    return f"decode {point['sequences']}" + (f" at {point['positions']:,}" if point["positions"] != 128 else "")


def seconds_of(a_round: dict, system: str, name: str) -> list[float]:
    """Returns the times of a point in a round; none if the system could not measure it."""
    measured = a_round["systems"].get(system, {}).get("points", [])
    return next((point["seconds"] for point in measured if point_name(point) == name and "seconds" in point), [])


def compare(result: dict) -> None:
    """Adds each system's speed at each point, over all rounds, to the result: tokens/s (the median of all repetitions, and the
    medians of the rounds with least and most), and the median share of the limit that the round before it measured."""
    rounds, config = result["rounds"], result["config"]
    for key in sum(PEAKS.values(), []):  # a processor has a peak, the speed of memory changes
        for a_round in rounds:
            a_round["limits"][key] = max(other["limits"].get(key) or 0 for other in rounds)
    for system in result["systems"]:
        system["speeds"] = {}
        for point in result["points"]:
            name, tokens = point_name(point), point["sequences"] * point["tokens"]
            taken = [(seconds, a_round) for a_round in rounds if (seconds := seconds_of(a_round, system["name"], name))]
            if not taken:
                continue
            shares = [limit / median(seconds) for seconds, a_round in taken
                      if (limit := least_seconds(config, system, point, a_round["limits"], len(seconds)))]
            by_round = [tokens / median(seconds) for seconds, _ in taken]
            system["speeds"][name] = {"tokens_per_s": tokens / median(sum((seconds for seconds, _ in taken), [])),
                                      "least": min(by_round), "most": max(by_round), "share_of_limit": median(shares) if shares else None}


def strongest(result: dict, name: str) -> dict | None:
    peers = [system for system in result["systems"] if system["peer"] != "foe" and name in system["speeds"]]
    return max(peers, key=lambda system: system["speeds"][name]["tokens_per_s"], default=None)


def ratio(result: dict, ours: str, theirs: str, name: str) -> str:
    """Returns how many times faster ours is, over all rounds and in the rounds with least and most."""
    by_round = [(median(b), median(a)) for a_round in result["rounds"]
                if (a := seconds_of(a_round, ours, name)) and (b := seconds_of(a_round, theirs, name))]
    speeds = {system["name"]: system["speeds"][name]["tokens_per_s"] for system in result["systems"] if name in system["speeds"]}
    if not by_round or ours not in speeds:
        return "-"
    ratios = [b / a for b, a in by_round]
    return f"{speeds[ours] / speeds[theirs]:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(speed: dict | None) -> str:
    if speed is None:
        return "-"
    share = f", {100 * speed['share_of_limit']:.0f} %" if speed["share_of_limit"] else ""
    return f"{number(speed['tokens_per_s'])} ({number(speed['least'])}-{number(speed['most'])}){share}"


def cost(result: dict, system: str, key: str, scale: float) -> str:
    values = [a_round["systems"][system][key] * scale for a_round in result["rounds"] if key in a_round["systems"].get(system, {})]
    return number(median(values)) if values else "-"


def tiles(limits: dict) -> str:
    if not limits.get("tile_flops_per_second"):
        return ""
    return (f" (tile registers: {limits['tile_flops_per_second'] / 1e9:,.0f} GFLOP/s in bf16,"
            f" {limits['tile_dots_per_second'] / 1e9:,.0f} Gop/s)")


def limit_lines(result: dict) -> list[str]:
    lines = []
    for i, a_round in enumerate(result["rounds"], 1):
        limits = a_round["limits"]
        lines.append(f"Round {i}: memory reads {limits['read_bytes_per_second'] / 1e9:.1f} GB/s; peaks of all rounds"
                     f" {limits['flops_per_second'] / 1e9:,.0f} GFLOP/s in f32 and {limits['dots_per_second'] / 1e9:,.0f} Gop/s of 8-bit"
                     f" integers{tiles(limits)}; other processes took {100 * a_round['others']:.0f} % of the processors.")  # fmt: skip
    return lines


def failures(result: dict) -> list[str]:
    """Returns a line for each point that a system did not measure, and why."""
    lines = list(result.get("notes", []))
    for system in result["systems"]:
        for a_round in result["rounds"]:
            measured = a_round["systems"].get(system["name"], {})
            lines += [f"{system['name']}: {measured['failed']}"] if "failed" in measured else []
            lines += [f"{system['name']}: no {point_name(point)}: {point['cannot']}" for point in measured.get("points", []) if "cannot" in point]
    return list(dict.fromkeys(lines))


def table(result: dict) -> str:
    """Returns the table of one model, in Markdown."""
    names = [point_name(point) for point in result["points"]]
    lines = [f"### {result['title']}", "",
             f"{result['threads']} threads, {len(result['rounds'])} rounds in turn. Tokens/s: median (least and most round), share of"
             " the round's limit.", "", *(f"- {line}" for line in limit_lines(result)), "",
             f"| | {' | '.join(names)} | first token, s | peak memory, MB | weights, MB |", f"|{'---|' * (len(names) + 4)}"]
    for system in result["systems"]:
        costs = [cost(result, system["name"], "first_token_s", 1), cost(result, system["name"], "peak_bytes", 1e-6),
                 number(sum(system["parts"].values()) / 1e6)]
        lines.append(f"| {system['name']} | {' | '.join(cell(system['speeds'].get(name)) for name in names)} | {' | '.join(costs)} |")
    best = {name: strongest(result, name) for name in names}
    for system in result["systems"]:
        if system["peer"] == "foe" and any(best.values()):
            ratios = [f"{ratio(result, system['name'], best[name]['name'], name)} {best[name]['peer']}" if best[name] else "-" for name in names]
            lines.append(f"| {system['name']} / strongest peer | {' | '.join(ratios)} | | | |")
    notes = failures(result) + [agreement_line(f"foe and {name}", found) for name, found in result.get("agreement", {}).items()]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def agreement_line(what: str, a: dict) -> str:
    return (f"logits of {what}: cosine {a['least_cosine']:.7f} at least, {a['median_cosine']:.7f} in the median; largest"
            f" difference {a['largest_difference']:.2g} where the largest logit is {a['largest_logit']:.2g};"
            f" {100 * a['same_largest']:.0f} % of positions have the same largest")
