"""Density peaks, point by point."""

import math

from helpers.slow_attention import top


def slow_peaks(x, groups, k, ranked=False):
    """Centres and groups; see `laconic.ops.density`."""
    n = len(x)
    d = [[float((a - b).norm()) / x.shape[1] ** 0.5 for b in x] for a in x]
    density = [math.exp(-sum(v * v for v in sorted(row)[:k]) / min(k, n)) for row in d]
    far = max(map(max, d))

    def apart(i):
        denser = [j for j in range(n) if (density[j], -j) > (density[i], -i)]
        return min((d[i][j] for j in denser), default=far)

    score = [density[i] * apart(i) for i in range(n)]
    centres = top(score, groups)
    if ranked:
        centres = sorted(centres, key=lambda i: -score[i])
    group = [centres.index(i) if i in centres else min(range(groups), key=lambda g: (d[i][centres[g]], g)) for i in range(n)]
    return centres, group
