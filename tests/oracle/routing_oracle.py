"""How published systems route a token, each from its own formulas, in NumPy float64.

Every function takes a token's router logits z [E] and returns the weights [E] of its experts, NaN for those that it does
not get. They are written apart from each other, so that none of them has the engine's general form.
"""

import numpy as np


def nothing(z):
    return np.full(len(z), np.nan)


def softmax(z):
    e = np.exp(z - np.max(z))
    return e / np.sum(e)


def best(values, k):
    """The indices of the k largest, the largest first, ties to the lower index."""
    return np.argsort(-np.asarray(values), kind="stable")[:k]


def olmoe(z, k, norm_topk_prob=False):
    """OLMoE and, with norm_topk_prob, Qwen3-MoE."""
    weights, p = nothing(z), softmax(z)
    chosen = best(p, k)
    weights[chosen] = p[chosen] / (np.sum(p[chosen]) if norm_topk_prob else 1)
    return weights


def mixtral(z, k):
    """Jiang et al. 2024, eq. 2: Softmax(TopK(x W_g)). So do gpt-oss and Granite."""
    weights = nothing(z)
    chosen = best(z, k)
    weights[chosen] = softmax(z[chosen])
    return weights


def deepseek_v2(z, k, n_group, topk_group, scale):
    """DeepSeek-V2's group_limited_greedy: groups by their largest probability; no renormalisation."""
    weights, p = nothing(z), softmax(z)
    groups = np.arange(len(z)) // (len(z) // n_group)
    kept = best([np.max(p[groups == g]) for g in range(n_group)], topk_group)
    chosen = best(np.where(np.isin(groups, kept), p, -np.inf), k)
    weights[chosen] = scale * p[chosen]
    return weights


def deepseek_v3(z, bias, k, n_group, topk_group, scale, norm_topk_prob=True):
    """DeepSeek-V3, eqs. 12 to 16: sigmoid affinities, a bias for the choice alone, groups by their two best."""
    weights, s = nothing(z), 1 / (1 + np.exp(-z))
    choice = s + bias
    groups = np.arange(len(z)) // (len(z) // n_group)
    kept = best([np.sum(np.sort(choice[groups == g])[-2:]) for g in range(n_group)], topk_group)
    chosen = best(np.where(np.isin(groups, kept), choice, -np.inf), k)
    weights[chosen] = scale * s[chosen] / (np.sum(s[chosen]) if norm_topk_prob else 1)
    return weights


def ernie(z, bias, k, norm_min):
    """ERNIE 4.5: a bias for the choice alone; the sum that weights are divided by counts as at least norm_min."""
    weights, p = nothing(z), softmax(z)
    chosen = best(p + bias, k)
    weights[chosen] = p[chosen] / max(np.sum(p[chosen]), norm_min)
    return weights


def top_p(z, p, most):
    """Huang et al. 2024 (Harder Tasks Need More Experts), eq. 5: experts by falling probability until p is reached."""
    weights, probabilities = nothing(z), softmax(z)
    total = 0
    for e in best(probabilities, most):
        weights[e] = probabilities[e]
        total += probabilities[e]
        if total >= p:
            break
    return weights


def ada_moe(z, k, nulls):
    """Zeng et al. 2024: the last `nulls` experts are null; weights are normed over the true ones."""
    weights = olmoe(z, k)
    weights[len(z) - nulls :] = np.nan
    return weights / np.nansum(weights) if np.any(~np.isnan(weights)) else weights


def ones(z, k, scale=1):
    """FactorLLM: the best experts, all with the same weight."""
    weights = nothing(z)
    weights[best(z, k)] = scale
    return weights


def grouped(route, z, groups):
    """Each group of consecutive experts by itself; `route` says how. For choices that no other group has a part in."""
    return np.concatenate([route(part) for part in np.split(z, groups)])
