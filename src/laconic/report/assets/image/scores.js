// Scores as shares from 0 to 1, and their colours.
function heat() {
  const heat = new Float32Array(N).fill(NaN);
  if (now.show === 'budget') {
    const last = Math.max(1, levels.length - 1);
    smallest().forEach((l, t) => {
      if (l >= 0) heat[t] = 1 - l / last;
    });
    return heat;
  }
  const cut = ranked();
  if (!cut) return heat;
  const known = Array.from(cut.scores.keys()).filter(t => !Number.isNaN(cut.scores[t]));
  if (now.show !== 'value') {
    const groups = now.show === 'rank' ? [known] : views.map((_, i) => known.filter(t => home[t][0] === i));
    for (const group of groups) {
      group.sort((a, b) => cut.scores[a] - cut.scores[b]);
      group.forEach((t, i) => {
        heat[t] = group.length > 1 ? i / (group.length - 1) : 1;
      });
    }
    return heat;
  }
  const finite = known.map(t => cut.scores[t]).filter(Number.isFinite);
  const low = Math.min(...finite),
    high = Math.max(...finite);
  known.forEach(t => {
    heat[t] = Math.min(1, Math.max(0, (cut.scores[t] - low) / (high - low || 1)));
  });
  return heat;
}
const RAMP = [
  [68, 1, 84],
  [71, 44, 122],
  [59, 81, 139],
  [44, 113, 142],
  [33, 144, 141],
  [39, 173, 129],
  [92, 200, 99],
  [170, 220, 50],
  [253, 231, 37]
];
function ramp(x, alpha) {
  const at = x * (RAMP.length - 1),
    i = Math.min(RAMP.length - 2, Math.floor(at)),
    f = at - i;
  return `rgba(${RAMP[i].map((a, k) => Math.round(a + f * (RAMP[i + 1][k] - a))).join()},${alpha})`;
}
