"""Bipartite soft matching, slow and straight from the paper."""


def matched(metric, r, cls):
    """Clusters of token numbers of one view in the order in which they come out; metric [t, d]."""
    t = len(metric)
    if min(r, (t - cls) // 2) == 0:
        return [[i] for i in range(t)]
    unit = metric / metric.norm(dim=-1, keepdim=True)
    a, b = list(range(0, t, 2)), list(range(1, t, 2))
    proposals = []
    for i in a:
        if not (cls and i == 0):
            cosines = {j: round(float(unit[i] @ unit[j]), 5) for j in b}
            best = max(b, key=lambda j: (cosines[j], -j))
            proposals.append((-cosines[best], i, best))
    chosen = {i: j for _, i, j in sorted(proposals)[: min(r, (t - cls) // 2)]}
    return [[i] for i in a if i not in chosen] + [[j, *(i for i in chosen if chosen[i] == j)] for j in b]
