"""What measurements beside a peer come to: bytes and operations that a model cannot do without, spreads, ratios, tables."""

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
    if ".experts." in name:
        return "experts"
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
    return parts


def experts_touched(config: dict, tokens: int) -> float:
    """Returns the experts of a layer that some of the tokens select, in expectation over equally likely selections."""
    experts, selected = config["num_experts"], config["num_experts_per_tok"]
    return experts * (1 - (1 - selected / experts) ** tokens)


def decode_bytes(config: dict, parts: dict[str, int], sequences: int, context: float) -> float:
    """Returns what a step must read: all weights but those of the embedding and of experts that nobody selects, and the KV
    cache, 16 bits an element."""
    weights = sum(parts.get(part, 0) for part in ("attention", "router", "head", "norms"))
    weights += parts["experts"] * experts_touched(config, sequences) / config["num_experts"]
    elements = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    return weights + 2 * elements * context * sequences


def prefill_operations(config: dict, tokens: int) -> float:
    """Returns multiplications and additions of a prompt whose last token alone needs logits."""
    hidden, heads, kv_heads, head_dim = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads",
                                                                  "head_dim"))
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    layer = hidden * head_dim * (2 * heads + 2 * kv_heads) + hidden * config["num_experts"]
    layer += 3 * hidden * width * config["num_experts_per_tok"]
    attention = heads * head_dim * tokens * (tokens + 1)  # scores and values of half a square
    return 2 * (config["num_hidden_layers"] * (layer * tokens + attention) + hidden * config["vocab_size"])


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: list[float]) -> dict[str, float]:
    return {name: percentile(values, share) for name, share in (("median", 0.5), ("p10", 0.1), ("p90", 0.9))}


def ratio(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, float]:
    """Returns how many times less ours is, from lists for each round: of all medians, and of the rounds with least and most."""
    rounds = [percentile(b, 0.5) / percentile(a, 0.5) for a, b in zip(ours, theirs)]
    overall = percentile(sum(theirs, []), 0.5) / percentile(sum(ours, []), 0.5)
    return {"median": overall, "least": min(rounds), "most": max(rounds)}


def point_limit(config: dict, parts: dict[str, int], point: dict, limits: dict, prompt: int, quantised: bool) -> float | None:
    """Returns the least seconds that a point can take: decoding by what memory reads, prefill by what arithmetic does (of
    integers, in quantised formats)."""
    if point["load"] == "decode":
        # Steps after the prompt and one step: the token at position p attends to p + 1.
        context = prompt + 1 + (point["repetitions"] + 1) / 2
        return decode_bytes(config, parts, point["sequences"], context) / limits["read_bytes_per_second"]
    peak = limits.get("dots_per_second" if quantised else "flops_per_second")
    return prefill_operations(config, point["tokens"]) / peak if peak else None


def compare_points(rounds: list[dict], limit_of) -> list[dict]:
    """Returns the points of all rounds, each with both systems' tokens/s and shares of their limits, and the ratio.
    `limit_of(system, point)` are a point's least seconds."""
    points = []
    for i, first in enumerate(rounds[0]["foe"]["points"]):
        point = {key: first[key] for key in ("load", "sequences", "tokens")}
        tokens = point["sequences"] * point["tokens"]
        seconds = {system: [a_round[system]["points"][i]["seconds"] for a_round in rounds] for system in ("foe", "peer")}
        for system, by_round in seconds.items():
            point["repetitions"] = max(map(len, by_round))
            limit = limit_of(system, point)
            values = sum(by_round, [])
            point[system] = {"tokens_per_s": spread([tokens / s for s in values]), "seconds": by_round,
                             "share_of_limit": limit and limit / percentile(values, 0.5)}
        point["ratio"] = ratio(seconds["foe"], seconds["peer"])
        points.append(point)
    return points


def compare_costs(rounds: list[dict], key: str) -> dict:
    values = {system: [a_round[system][key] for a_round in rounds] for system in ("foe", "peer")}
    return {**{system: spread(v) for system, v in values.items()},
            "ratio": ratio([[v] for v in values["foe"]], [[v] for v in values["peer"]])}


def row(name: str, foe: str, peer: str, times: dict) -> str:
    return f"{name:<22} {foe:>34} {peer:>34} {times['median']:>7.2f} {times['least']:>7.2f}-{times['most']:<6.2f}"


def figure(numbers: dict, scale: float = 1, share: float | None = None) -> str:
    text = f"{numbers['median'] * scale:.2f} ({numbers['p10'] * scale:.2f}-{numbers['p90'] * scale:.2f})"
    return text + (f" {100 * share:4.0f} %" if share else "       ")


def table(result: dict) -> str:
    """Returns the table of one model in one format."""
    limits = result["limits"]
    lines = [f"{result['shape']}, {result['layers']} of {result['model_layers']} layers, foe {result['format']} beside llama.cpp"
             f" {result['peer_format']}; {result['threads']} threads, {len(result['rounds'])} rounds;"
             f" memory reads {limits['read_bytes_per_second'] / 1e9:.1f} GB/s; other processes took"
             f" {100 * max(a_round['others'] for a_round in result['rounds']):.0f} % of the processors at most",
             f"{'tokens/s':<22} {'foe (p10-p90), of limit':>34} {'llama.cpp (p10-p90), of limit':>34} {'ratio':>7}"
             f" {'by round':>14}"]
    for point in result["points"]:
        name = (f"decode of {point['sequences']}" if point["load"] == "decode" else f"prefill of {point['tokens']}")
        lines.append(row(name, *(figure(point[s]["tokens_per_s"], 1, point[s]["share_of_limit"]) for s in ("foe", "peer")),
                         point["ratio"]))
    for key, name, scale in (("peak_bytes", "peak memory, MB", 1e-6), ("first_token_s", "start to token, s", 1)):
        costs = result[key]
        lines.append(row(name, figure(costs["foe"], scale), figure(costs["peer"], scale), costs["ratio"]))
    lines += [f"{'file, MB':<22} {sum(result['parts']['foe'].values()) / 1e6:>27.1f}       "
              f" {sum(result['parts']['peer'].values()) / 1e6:>27.1f}", agreement_line("these two", result["agreement"])]
    return "\n".join(lines)


def agreement_line(what: str, a: dict) -> str:
    return (f"logits of {what}: cosine {a['least_cosine']:.7f} at least, {a['median_cosine']:.7f} in the median; largest"
            f" difference {a['largest_difference']:.2g} where the largest logit is {a['largest_logit']:.2g};"
            f" {100 * a['same_largest']:.0f} % of positions have the same largest")
