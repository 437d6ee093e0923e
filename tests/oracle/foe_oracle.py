"""The equations of MoE, grouped routing (MoGE) and Federation of Experts in NumPy float64: the C++ engine's oracle.

Written from the equations alone, for reading and not for speed: whole sequences, one head and one expert at a time.

    r    = x + sum_h Attn_h(norm(x))                            first layer; x: the embedding
    r    = r + c * sum_h (M_h + Attn_h(norm(r + M_h)))          later layers; c = 1/H (mean) or 1 (sum)
    M_h  = sum over e in TopK_{k/H}(E_h) of w_e * FFN_e(norm(r))
    x    = r + c * sum_h M_h                                    then the final norm and the token head

Group h owns the h-th contiguous share of the query heads, KV heads and experts. With residual = "shared" every
layer adds its experts' outputs to r at once, unscaled, and attention reads r; so does a model of one group.

A block may have its norm before it, after it (OLMo 2: r + norm(block(r))) or both (Gemma 2), a factor on what it adds
(Granite), and the experts may read the r that attention reads (Cohere, GPT-NeoX). In a federated model the norm after
the experts is that of each group's own M_h. There parallel experts are summed together with the attention beside them:

    r    = r + c * sum_h (Attn_h(norm(r)) + M_h),  M_h of the same r     experts parallel to attention
    r    = r + c * sum_h (M_h + Attn_h(norm(r)))                         attention parallel to the experts below

With group_sync_every = n only the first of every n layers sums. In the others u_h, what group h has added since the
last sum, stays with it: u_h += Attn_h(norm(r + u_h)), then u_h += M_h, of norm(r + u_h), which the router reads, too.

T tokens, D model, N query heads, M KV heads, C head dim, E experts, F expert hidden, H groups, V vocabulary.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import safetensors_io


@dataclass
class Result:
    logits_TV: np.ndarray
    states_TD: np.ndarray = None  # what they are made of, behind the last norm
    # Smallest distance, over tokens, layers and groups, between the router logits of the last expert taken and the best
    # one left, relative to that layer's largest router logit. Where these two tie, the lower index is taken by rule,
    # and the distance is that to the nearest other score on either side.
    router_margin: float = np.inf
    # Per layer: how many tokens each expert got [E], and rms(M_h) / rms(r), the weight of the experts in the residual.
    expert_tokens: list = field(default_factory=list)
    expert_share: list = field(default_factory=list)


def load(folder):
    """Returns (config, weights as float64) of a model folder with one safetensors file."""
    config = json.loads((Path(folder) / "config.json").read_text())
    tensors = safetensors_io.read(Path(folder) / "model.safetensors")
    weights = {name: array.astype(np.float64) for name, array in tensors.items()}
    for name in weights:
        if name.endswith("norm.weight"):  # Gemma's multiply by 1 + weight
            weights[name] = weights[name] + config.get("norm_offset", 0)
    return config, weights


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps) * weight


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_pytorch_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu2": lambda x: np.square(np.maximum(x, 0)),
}


def feed_forward(config, x_TD, gate_FD, up_FD, down_DF, biases=(0, 0, 0)):
    """down(act(gate x) * up x); gpt-oss: down((clip(up x) + 1) * g * sigmoid(alpha g)), g = min(gate x, limit)."""
    gate_TF, up_TF = x_TD @ gate_FD.T + biases[0], x_TD @ up_FD.T + biases[1]
    if limit := config.get("swiglu_limit"):
        gate_TF, up_TF = np.minimum(gate_TF, limit), np.clip(up_TF, -limit, limit)
    if (alpha := config.get("swiglu_alpha", 1)) != 1:
        hidden_TF = gate_TF / (1 + np.exp(-alpha * gate_TF))
    else:
        hidden_TF = ACTIVATIONS[config.get("hidden_act", "silu")](gate_TF)
    return hidden_TF * (up_TF + config.get("up_offset", 0)) @ down_DF.T + biases[2]


def soft_cap(x, cap):
    """Gemma 2, section 2; 0 is none."""
    return cap * np.tanh(x / cap) if cap else x


def rope(x_TC, config):
    """Rotary embedding of the first part of a head. Dimension i of it turns together with dimension i + half of its
    width (Hugging Face's convention) or, interleaved, dimension 2i with 2i + 1 (GPT-J's)."""
    width = int(x_TC.shape[1] * config.get("partial_rotary_factor", 1.0))
    frequencies, factor = rope_frequencies(config, width, len(x_TC))
    angles = np.outer(np.arange(len(x_TC)), frequencies)
    pairs = np.arange(width).reshape(-1, 2) if config.get("rope_interleaved") else np.arange(width).reshape(2, -1).T
    out = x_TC.copy()
    for i, (a, b) in enumerate(pairs):
        cos, sin = factor * np.cos(angles[:, i]), factor * np.sin(angles[:, i])
        out[:, a] = x_TC[:, a] * cos - x_TC[:, b] * sin
        out[:, b] = x_TC[:, b] * cos + x_TC[:, a] * sin
    return out


def is_federated(config):
    return config["residual"] == "federated" and config["expert_groups"] > 1


def share(total, groups, h):
    """The h-th contiguous share of `total` things, which `groups` divides."""
    return range(total // groups * h, total // groups * (h + 1))


def rope_frequencies(config, width, length):
    """The frequency of each pair, and what cosines and sines are multiplied by, for a text of so many tokens.

    Formulas: linear is position interpolation (arXiv 2306.15595), yarn is arXiv 2309.00071 with DeepSeek-V3's mscale,
    longrope arXiv 2402.13753; dynamic NTK and Llama 3.1's ramp are those of transformers' documentation."""
    theta, index = config["rope_theta"], np.arange(width // 2)
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    kind, s = scaling["rope_type"], scaling.get("factor", 1.0)
    trained = scaling.get("original_max_position_embeddings")
    if kind == "dynamic":
        theta *= (s * max(length, trained) / trained - (s - 1)) ** (width / (width - 2))
    plain = theta ** (-2.0 * index / max(width, 1))
    if kind in ("default", "dynamic"):
        return plain, 1.0
    if kind == "linear":
        return plain / s, 1.0
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        wavelength = 2 * np.pi / plain
        smooth = (trained / wavelength - low) / (high - low)
        between = (1 - smooth) * plain / s + smooth * plain
        return np.where(wavelength < trained / high, plain, np.where(wavelength > trained / low, plain / s, between)), 1.0
    if kind == "yarn":
        def index_of(turns):
            return width * np.log(trained / (2 * np.pi * turns)) / (2 * np.log(theta))

        low, high = index_of(scaling.get("beta_fast", 32)), index_of(scaling.get("beta_slow", 1))
        if scaling.get("truncate", True):
            low, high = np.floor(low), np.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        ramp = np.clip((index - low) / ((high - low) or 0.001), 0, 1)

        def temperature(mscale):
            return 0.1 * mscale * np.log(s) + 1 if s > 1 else 1.0

        both = scaling.get("mscale") and scaling.get("mscale_all_dim")
        factor = temperature(scaling["mscale"]) / temperature(scaling["mscale_all_dim"]) if both else temperature(1)
        return plain / s * ramp + plain * (1 - ramp), scaling.get("attention_factor") or factor
    assert kind == "longrope", scaling
    factor = np.sqrt(1 + np.log(s) / np.log(trained)) if s > 1 else 1.0
    divisors = np.array(scaling["long_factor" if length > trained else "short_factor"])
    return plain / divisors, scaling.get("attention_factor") or factor


def layers_of(config):
    """For each layer (attention, experts): all keys of config.json as the key "layers" has them for this block, and
    its norm, residual_factor and parallel."""
    layers = []
    for entry in config.get("layers") or [{"repeat": config["num_hidden_layers"]}]:
        blocks = []
        for kind, block in zip(("attention", "experts"), entry.get("blocks", [{"attention": {}}, {"experts": {}}])):
            own = {key: value for key, value in block[kind].items() if value is not None}
            if "router" in own:
                own["router"] = config.get("router", {}) | own["router"]
            plain = {"norm": "before", "residual_factor": 1.0, "parallel": False}
            blocks.append(config | plain | own | {key: block[key] for key in plain if key in block})
        layers += [blocks] * entry.get("repeat", 1)
    assert len(layers) == config["num_hidden_layers"], (len(layers), config["num_hidden_layers"])
    return layers


def norm_names(attention, experts):
    """The names of a layer's norms (before attention, after it, before the experts, after them), None where there is
    none. Llama calls the norm before the experts as Gemma 2 calls that after attention."""
    before, after = ("before", "both"), ("after", "both")
    names = ["input_layernorm" if attention["norm"] in before else None,
             "post_attention_layernorm" if attention["norm"] in after else None]
    before_experts = "pre_feedforward_layernorm" if attention["norm"] in after else "post_attention_layernorm"
    names.append({"before": before_experts, "both": before_experts, "shared": names[0]}.get(experts["norm"]))
    names.append("post_feedforward_layernorm" if experts["norm"] in after else None)
    return names


def attention(config, weights, layer, x_TD, heads, kv_heads):
    """Causal attention of some query heads, with the KV heads they read, up to and including their output projection.

    QK-norm "full" is over the width of the heads given: all of them, or one group's; Hunyuan has it after RoPE. A sink is a logit of a query head
    in the sum of its softmax, without a value (gpt-oss). Biases are those of Qwen 2 and gpt-oss.
    """
    c = config["head_dim"]
    w = config.get("v_head_dim") or c
    prefix = f"model.layers.{layer}.self_attn."

    def of_heads(some, width):
        return slice(some[0] * width, (some[-1] + 1) * width)

    def project(name, rows):
        y = x_TD @ weights[f"{prefix}{name}_proj.weight"][rows].T
        return y + weights[f"{prefix}{name}_proj.bias"][rows] if config.get("qkv_bias") else y

    rows, kv_rows = of_heads(heads, c), of_heads(kv_heads, c)
    q, k, v = project("q", rows), project("k", kv_rows), project("v", of_heads(kv_heads, w))
    q, k, v = (a.reshape(len(x_TD), -1, width) for a, width in ((q, c), (k, c), (v, w)))

    def norm(x_TNC, name, rows):
        if config["qk_norm"] == "none":
            return x_TNC
        weight, eps = weights[f"{prefix}{name}_norm.weight"], config["rms_norm_eps"]
        if config["qk_norm"] == "head":
            return rms_norm(x_TNC, weight, eps)
        return rms_norm(x_TNC.reshape(len(x_TNC), -1), weight[rows], eps).reshape(x_TNC.shape)

    def turn(x_TNC):
        return np.stack([rope(x_TNC[:, n], config) for n in range(x_TNC.shape[1])], axis=1)

    if config.get("qk_norm_after_rope"):
        q, k = norm(turn(q), "q", rows), norm(turn(k), "k", kv_rows)
    else:
        q, k = turn(norm(q, "q", rows)), turn(norm(k, "k", kv_rows))

    # A query sees itself and what is before it: of a window the last so many positions, its own among them.
    distance_TT = np.subtract.outer(np.arange(len(x_TD)), np.arange(len(x_TD)))
    hidden_TT = (distance_TT < 0) | (distance_TT >= (config.get("sliding_window") or len(x_TD)))
    scale = config.get("attention_scale") or 1 / np.sqrt(c)
    queries_per_kv = len(heads) // len(kv_heads)
    out = np.empty((len(x_TD), len(heads), w))
    for n, head in enumerate(heads):
        m = n // queries_per_kv
        scores_TT = soft_cap(q[:, n] @ k[:, m].T * scale, config.get("attn_logit_softcapping"))
        scores_TT = np.where(hidden_TT, -np.inf, scores_TT)
        if config.get("sinks"):
            sink_T1 = np.full((len(x_TD), 1), weights[prefix + "sinks"][head])
            out[:, n] = softmax(np.concatenate([scores_TT, sink_T1], axis=1))[:, :-1] @ v[:, m]
        else:
            out[:, n] = softmax(scores_TT) @ v[:, m]
    y_TD = out.reshape(len(x_TD), -1) @ weights[prefix + "o_proj.weight"][:, of_heads(heads, w)].T
    return y_TD + weights[prefix + "o_proj.bias"] if config.get("output_bias") else y_TD


def attention_of_group(config, weights, layer, x_TD, groups, h):
    heads = share(config["num_attention_heads"], groups, h)
    return attention(config, weights, layer, x_TD, heads, share(config["num_key_value_heads"], groups, h))


def route(config, scores_TE):
    """Returns the weights [T, E] of the chosen experts, 0 elsewhere, and the smallest margin of a choice."""
    probabilities_TE = softmax(scores_TE)
    groups = 1 if config.get("router", {}).get("across_groups") else config["expert_groups"]
    k = config["num_experts_per_tok"] // groups
    chosen_TE = np.zeros(scores_TE.shape, bool)
    margin = np.inf
    for h in range(groups):
        group = np.array(share(scores_TE.shape[1], groups, h))
        order = np.argsort(-scores_TE[:, group], axis=1, kind="stable")  # softmax keeps the order; stable: lower index
        np.put_along_axis(chosen_TE, group[order[:, :k]], True, axis=1)
        if k < len(group):
            ranked = np.take_along_axis(scores_TE[:, group], order, axis=1)
            below = ranked[:, k - 1, None] - ranked  # how far each score lies below the last one taken
            tied = below[:, k] == 0
            margin = min(margin, np.min(below[~tied, k], initial=np.inf))
            margin = min(margin, np.min(np.abs(below[tied]), where=below[tied] != 0, initial=np.inf))
    weights_TE = np.where(chosen_TE, probabilities_TE, 0)
    if config["norm_topk_prob"]:
        weights_TE /= np.sum(weights_TE, axis=1, keepdims=True)
    return weights_TE * config.get("router", {}).get("scale", 1.0), margin / np.max(np.abs(scores_TE))


def route_alone(routing, scores_TE, bias_E):
    """The same for `routing`, a function of one token's scores and the selection bias (routing_oracle.py).

    The margin is the smallest of some shifts of a single score that change what is chosen.
    """
    weights_TE = np.stack([routing(z, bias_E) for z in scores_TE])
    largest = np.max(np.abs(scores_TE))
    for margin in 1e-5, 1e-4, 1e-3:
        for z, weights in zip(scores_TE, weights_TE):
            for shift in np.concatenate([np.eye(len(z)), -np.eye(len(z))]) * margin * largest:
                if np.any(np.isnan(routing(z + shift, bias_E)) != np.isnan(weights)):
                    return np.nan_to_num(weights_TE), margin / 2
    return np.nan_to_num(weights_TE), margin


def affine_expert(weights, prefix, kind, index, x_TD):
    """What an expert without a network gives for x: nothing, x, or a x + b v with (a, b) = softmax(W x)."""
    if kind == "zero":
        return np.zeros_like(x_TD)
    if kind == "copy":
        return x_TD
    a_T, b_T = softmax(x_TD @ weights[prefix + "mlp.constant_experts.gates"][2 * index : 2 * index + 2].T).T
    return a_T[:, None] * x_TD + b_T[:, None] * weights[prefix + "mlp.constant_experts.vectors"][index]


def experts(config, weights, layer, x_TD, result, routing=None):
    """Returns M [H, T, D], each group's expert output; a dense layer is one group with one expert of weight 1."""
    prefix = f"model.layers.{layer}."

    def network_of(rows, name, units=slice(None), prefix=prefix):
        gate, up, down = (weights[f"{prefix}mlp.{name}{part}_proj.weight"] for part in ("gate", "up", "down"))
        biases = [weights.get(f"{prefix}mlp.{name}{part}_proj.bias", 0) for part in ("gate", "up", "down")]
        return feed_forward(config, x_TD[rows], gate[units], up[units], down[:, units], biases)

    def network(rows, e):
        if config.get("expert_storage") == "slices":
            return network_of(rows, "", slice(e * width, (e + 1) * width))
        owner = config.get("experts_of_layer", -1)
        return network_of(rows, f"experts.{e}.", prefix=prefix if owner < 0 else f"model.layers.{owner}.")

    if config["num_experts"] == 0:
        m_HTD = network_of(slice(None), "")[None]
    else:
        groups, width = config["expert_groups"], config["moe_intermediate_size"]
        shared = config.get("num_shared_experts", 0)
        m_HTD = np.zeros((groups,) + x_TD.shape)
        # Not a matrix product: BLAS may round equal rows of the router differently, and then ties are none.
        gate_ED = weights[prefix + "mlp.gate.weight"]
        scores_TE = np.stack([np.sum(x_TD * row, axis=1) for row in gate_ED], axis=1)
        scores_TE = scores_TE + weights.get(prefix + "mlp.gate.bias", 0)
        if routing:
            bias_E = weights.get(prefix + "mlp.gate.e_score_correction_bias", np.zeros(len(gate_ED)))
            weights_TE, margin = route_alone(routing, scores_TE, bias_E)
        else:
            weights_TE, margin = route(config, scores_TE)
        for h in range(groups):
            # A group's scores: those of its networks, then of its constant, copy and zero experts.
            kinds = [("network", e) for e in share(config["num_experts"], groups, h)]
            for kind in "constant", "copy", "zero":
                kinds += [(kind, e) for e in share(config.get(kind + "_experts", 0), groups, h)]
            for (kind, e), column in zip(kinds, share(len(gate_ED), groups, h), strict=True):
                rows = np.flatnonzero(weights_TE[:, column])
                y = network(rows, e) if kind == "network" else affine_expert(weights, prefix, kind, e, x_TD[rows])
                m_HTD[h, rows] += weights_TE[rows, column, None] * y
            if shared:
                units = share(shared * (config.get("shared_intermediate_size") or width), groups, h)
                y_TD = network_of(slice(None), "shared_experts.", slice(units[0], units[-1] + 1))
                if config.get("shared_gate"):
                    y_TD = y_TD / (1 + np.exp(-x_TD @ weights[prefix + "mlp.shared_expert_gate.weight"].T))
                m_HTD[h] += y_TD
        result.router_margin = min(result.router_margin, margin)
        result.expert_tokens.append(np.count_nonzero(weights_TE, axis=0))
    return m_HTD


def forward(config, weights, tokens, routing=None):
    """Computes the logits of every position of one sequence.

    routing: how a token's experts follow from its scores, if not as route() says.
    """
    result = Result(logits_TV=None)
    groups, eps = config["expert_groups"], config["rms_norm_eps"]
    federated = is_federated(config)
    c = 1.0 / groups if federated and config["group_sync"] == "mean" else 1.0
    # Without a federation all heads are one attention, whatever the grouping of the experts.
    streams = groups if federated else 1

    def norm(name, layer, x):
        return rms_norm(x, weights[f"model.layers.{layer}.{name}.weight"], eps) if name else x

    r = weights["model.embed_tokens.weight"][np.asarray(tokens)] * config.get("embedding_factor", 1.0)
    u_HTD = np.zeros((streams,) + r.shape)  # what groups have added since the last sum
    summed = True  # whether that is nothing
    for layer, (a, e) in enumerate(layers_of(config)):
        before_attention, after_attention, before_experts, after_experts = norm_names(a, e)

        def experts_of(x_TD):
            m_HTD = experts(e, weights, layer, norm(before_experts, layer, x_TD), result, routing)
            if not federated:
                m_HTD = np.sum(m_HTD, axis=0)[None]
            return e["residual_factor"] * norm(after_experts, layer, m_HTD)

        m_HTD = experts_of(r) if e["parallel"] else 0
        reads_HTD = r + (0 if a["parallel"] else 1) * u_HTD
        x_HTD = norm(before_attention, layer, reads_HTD)
        a_HTD = np.stack([attention_of_group(a, weights, layer, x_HTD[h], streams, h) for h in range(streams)])
        syncs = layer % config.get("group_sync_every", 1) == 0
        if not federated:
            r = r + a["residual_factor"] * norm(after_attention, layer, a_HTD[0])
        elif syncs:
            scale = c if not summed or e["parallel"] else 1.0
            r = r + scale * np.sum(u_HTD + m_HTD + a["residual_factor"] * a_HTD, axis=0)
            u_HTD = np.zeros_like(u_HTD)
        else:
            u_HTD = u_HTD + a["residual_factor"] * a_HTD
        if not e["parallel"] and syncs:
            m_HTD = experts_of(r)
        elif not e["parallel"]:
            m_HTD = np.stack([experts_of(r + u_HTD[h])[h] for h in range(groups)])
        result.expert_share.append(rms(m_HTD) / rms(r))
        if not federated:
            r = r + m_HTD[0]
        elif not e["parallel"]:
            u_HTD = u_HTD + m_HTD
        summed = not federated or e["parallel"]
    r = r + c * np.sum(u_HTD, axis=0)
    head_VD = weights["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    result.states_TD = rms_norm(r, weights["model.norm.weight"], eps)
    logits_TV = result.states_TD @ head_VD.T * config.get("logit_factor", 1.0)
    result.logits_TV = soft_cap(logits_TV, config.get("logit_softcap"))
    return result
