// What the page was given (DATA), unpacked; what it shows now; and what became of a token in a layer.
// The files of this folder are joined in the order that image_page.py names and share one scope.
const get = id => document.getElementById(id),
  all = css => Array.from(document.querySelectorAll(css));
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const PART = DATA.kind === 'audio' ? 'token' : 'patch';
const N = DATA.tokens,
  LAYERS = DATA.layers,
  clock = { drawn: 0 };
const levels = DATA.levels.map(level => ({
  label: level.label,
  at: level.at,
  states: level.states.map(s => ({ share: bytes(s.share), into: new Int32Array(bytes(s.into).buffer) })),
  cuts: level.cuts.map(c => ({ ...c, scores: c.scores === null ? null : new Float32Array(bytes(c.scores).buffer) }))
}));
const views = DATA.views.map((v, i) => {
  const canvas = document.querySelector(`canvas[data-view="${i}"]`),
    bitmap = new Image();
  const caption = canvas.parentNode.querySelector('figcaption span');
  return { ...v, canvas, bitmap, caption, rows: v.cells.length, cols: v.cells[0].length };
});
const home = new Array(N);
views.forEach((v, i) =>
  v.cells.forEach((line, r) =>
    line.forEach((t, c) => {
      if (t >= 0) home[t] = [i, r, c];
    })
  )
);
const now = { level: DATA.start, layer: LAYERS.length - 1, show: 'patches', token: -1 };
const n = x => x.toLocaleString('en');
const safe = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const stateOf = (level, layer) => levels[level].states[levels[level].at[layer]];
const KEPT = 0,
  STREAM = 1,
  MERGED = 2,
  DROPPED = 3;
function fate(state, t) {
  if (state.share[t] > 0) return KEPT;
  if (state.into[t] === t) return STREAM;
  return state.into[t] < 0 ? DROPPED : MERGED;
}
const KINDS = DATA.lens ? [...new Set(DATA.lens.kinds)].sort() : [];
const KIND_COLORS = [
  [0, 114, 178],
  [230, 159, 0],
  [204, 121, 167],
  [0, 158, 115],
  [213, 94, 0],
  [86, 180, 233]
];
const kindColor = (kind, alpha) => `rgba(${KIND_COLORS[KINDS.indexOf(kind) % KIND_COLORS.length].join()},${alpha})`;
const hue = token => Math.round((token * 137.508) % 360);
function ranked() {
  const cuts = levels[now.level].cuts.filter(c => c.scores !== null && c.layer <= LAYERS[now.layer]);
  return cuts.length ? cuts[cuts.length - 1] : null;
}
function smallest() {
  return Int32Array.from({ length: N }, (_, t) => levels.findIndex((_, l) => stateOf(l, now.layer).share[t] > 0));
}
