"""The equations of MoE, grouped routing (MoGE) and Federation of Experts in NumPy float64: the C++ engine's oracle.

Written from the equations alone, for reading and not for speed: whole sequences, one head and one expert at a time.

    r    = x + sum_h Attn_h(norm(x))                            first layer; x: the embedding
    r    = r + c * sum_h (M_h + Attn_h(norm(r + M_h)))          later layers; c = 1/H (mean) or 1 (sum)
    M_h  = sum over e in TopK_{k/H}(E_h) of w_e * FFN_e(norm(r))
    x    = r + c * sum_h M_h                                    then the final norm and the token head

Group h owns the h-th contiguous share of the query heads, KV heads and experts. With residual = "shared" every
layer adds its experts' outputs to r at once, unscaled, and attention reads r; so does a model of one group.

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
    return config, {name: array.astype(np.float64) for name, array in tensors.items()}


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps) * weight


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def swiglu(x_TD, gate_FD, up_FD, down_DF):
    gate_TF = x_TD @ gate_FD.T
    return (gate_TF / (1 + np.exp(-gate_TF)) * (x_TD @ up_FD.T)) @ down_DF.T


def rope(x_TC, theta, factor):
    """Rotary embedding, Hugging Face's convention: dimension i turns together with dimension i + C/2."""
    tokens, width = x_TC.shape
    frequencies = theta ** (-2.0 * np.arange(width // 2) / width)
    angles = np.outer(np.arange(tokens) / factor, frequencies)
    cos, sin = np.cos(angles), np.sin(angles)
    low, high = x_TC[:, : width // 2], x_TC[:, width // 2 :]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=1)


def is_federated(config):
    return config["residual"] == "federated" and config["expert_groups"] > 1


def share(total, groups, h):
    """The h-th contiguous share of `total` things, which `groups` divides."""
    return range(total // groups * h, total // groups * (h + 1))


def rope_factor(config):
    scaling = config.get("rope_scaling")
    if not scaling:
        return 1.0
    assert scaling["rope_type"] == "linear", scaling
    return scaling["factor"]


def attention(config, weights, layer, x_TD, heads, kv_heads):
    """Causal attention of some query heads, with the KV heads they read, up to and including their output projection.

    QK-norm "full" is over the width of the heads given: all of them, or one group's.
    """
    c = config["head_dim"]
    prefix = f"model.layers.{layer}.self_attn."
    rows = slice(heads[0] * c, (heads[-1] + 1) * c)
    kv_rows = slice(kv_heads[0] * c, (kv_heads[-1] + 1) * c)
    q = x_TD @ weights[prefix + "q_proj.weight"][rows].T
    k = x_TD @ weights[prefix + "k_proj.weight"][kv_rows].T
    v = x_TD @ weights[prefix + "v_proj.weight"][kv_rows].T
    eps = config["rms_norm_eps"]
    if config["qk_norm"] == "full":
        q = rms_norm(q, weights[prefix + "q_norm.weight"][rows], eps)
        k = rms_norm(k, weights[prefix + "k_norm.weight"][kv_rows], eps)
    q, k, v = (a.reshape(len(x_TD), -1, c) for a in (q, k, v))
    if config["qk_norm"] == "head":
        q = rms_norm(q, weights[prefix + "q_norm.weight"], eps)
        k = rms_norm(k, weights[prefix + "k_norm.weight"], eps)

    future_TT = np.triu(np.ones((len(x_TD), len(x_TD)), bool), 1)
    queries_per_kv = len(heads) // len(kv_heads)
    out = np.empty_like(q)
    for n in range(len(heads)):
        m = n // queries_per_kv
        q_TC = rope(q[:, n], config["rope_theta"], rope_factor(config))
        k_TC = rope(k[:, m], config["rope_theta"], rope_factor(config))
        scores_TT = np.where(future_TT, -np.inf, q_TC @ k_TC.T / np.sqrt(c))
        out[:, n] = softmax(scores_TT) @ v[:, m]
    return out.reshape(len(x_TD), -1) @ weights[prefix + "o_proj.weight"][:, rows].T


def attention_of_group(config, weights, layer, x_TD, groups, h):
    heads = share(config["num_attention_heads"], groups, h)
    return attention(config, weights, layer, x_TD, heads, share(config["num_key_value_heads"], groups, h))


def route(config, scores_TE):
    """Returns the weights [T, E] of the chosen experts, 0 elsewhere, and the smallest margin of a choice."""
    probabilities_TE = softmax(scores_TE)
    groups = config["expert_groups"]
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
    return weights_TE, margin / np.max(np.abs(scores_TE))


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


def experts(config, weights, layer, r_TD, result, routing=None):
    """Returns M [H, T, D], each group's expert output; a dense model is one group with one expert of weight 1."""
    prefix = f"model.layers.{layer}."
    eps = config["rms_norm_eps"]
    x_TD = rms_norm(r_TD, weights[prefix + "post_attention_layernorm.weight"], eps)

    def feed_forward(rows, name, units=slice(None)):
        gate, up, down = (weights[f"{prefix}mlp.{name}{part}_proj.weight"] for part in ("gate", "up", "down"))
        return swiglu(x_TD[rows], gate[units], up[units], down[:, units])

    def network(rows, e):
        if config.get("expert_storage") == "slices":
            return feed_forward(rows, "", slice(e * width, (e + 1) * width))
        return feed_forward(rows, f"experts.{e}.")

    if config["num_experts"] == 0:
        m_HTD = feed_forward(slice(None), "")[None]
    else:
        groups, width = config["expert_groups"], config["moe_intermediate_size"]
        shared = config.get("num_shared_experts", 0)
        m_HTD = np.zeros((groups,) + r_TD.shape)
        # Not a matrix product: BLAS may round equal rows of the router differently, and then ties are none.
        gate_ED = weights[prefix + "mlp.gate.weight"]
        scores_TE = np.stack([np.sum(x_TD * row, axis=1) for row in gate_ED], axis=1)
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
                units = share(shared * width, groups, h)
                y_TD = feed_forward(slice(None), "shared_experts.", slice(units[0], units[-1] + 1))
                if config.get("shared_gate"):
                    y_TD = y_TD / (1 + np.exp(-x_TD @ weights[prefix + "mlp.shared_expert_gate.weight"].T))
                m_HTD[h] += y_TD
        result.router_margin = min(result.router_margin, margin)
        result.expert_tokens.append(np.count_nonzero(weights_TE, axis=0))
    result.expert_share.append(rms(m_HTD) / rms(r_TD))
    return m_HTD


def forward(config, weights, tokens, routing=None):
    """Computes the logits of every position of one sequence.

    routing: how a token's experts follow from its scores, if not as route() says.
    """
    result = Result(logits_TV=None)
    layers, groups, eps = config["num_hidden_layers"], config["expert_groups"], config["rms_norm_eps"]
    federated = is_federated(config)
    c = 1.0 / groups if federated and config["group_sync"] == "mean" else 1.0
    # Without a federation all heads are one attention, whatever the grouping of the experts.
    streams = groups if federated else 1

    r = weights["model.embed_tokens.weight"][np.asarray(tokens)]
    m_HTD = None
    for layer in range(layers):
        norm = weights[f"model.layers.{layer}.input_layernorm.weight"]
        if layer == 0 or not federated:
            x = rms_norm(r, norm, eps)
            r = r + sum(attention_of_group(config, weights, layer, x, streams, h) for h in range(streams))
        else:
            update = 0
            for h in range(groups):
                x = rms_norm(r + m_HTD[h], norm, eps)
                update = update + m_HTD[h] + attention_of_group(config, weights, layer, x, groups, h)
            r = r + c * update
        m_HTD = experts(config, weights, layer, r, result, routing)
        if not federated:
            r = r + np.sum(m_HTD, axis=0)
    if federated:
        r = r + c * np.sum(m_HTD, axis=0)
    head_VD = weights["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    result.logits_TV = rms_norm(r, weights["model.norm.weight"], eps) @ head_VD.T
    return result
