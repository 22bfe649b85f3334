"""Script of the page of `laconic inspect --image`."""

SCRIPT = r"""
const get = id => document.getElementById(id), all = css => Array.from(document.querySelectorAll(css));
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const N = DATA.tokens, LAYERS = DATA.layers, clock = {drawn: 0};
const levels = DATA.levels.map(level => ({
  label: level.label, at: level.at,
  states: level.states.map(s => ({share: bytes(s.share), into: new Int32Array(bytes(s.into).buffer)})),
  cuts: level.cuts.map(c => ({...c, scores: c.scores === null ? null : new Float32Array(bytes(c.scores).buffer)})),
}));
const views = DATA.views.map((v, i) => {
  const canvas = document.querySelector('canvas[data-view="' + i + '"]'), image = new Image();
  const caption = canvas.parentNode.querySelector('figcaption span');
  return {...v, canvas, image, caption, rows: v.cells.length, cols: v.cells[0].length};
});
const home = new Array(N);
views.forEach((v, i) => v.cells.forEach((line, r) => line.forEach((t, c) => { if (t >= 0) home[t] = [i, r, c]; })));
const now = {level: DATA.start, layer: LAYERS.length - 1, show: 'patches', token: -1};
const n = x => x.toLocaleString('en');
const safe = text => String(text).replace(/[&<>"]/g, c => '&#' + c.charCodeAt(0) + ';');

// -- what is where ---------------------------------------------------------------------------------------------------
const stateOf = (level, layer) => levels[level].states[levels[level].at[layer]];
const KEPT = 0, STREAM = 1, MERGED = 2, DROPPED = 3;
function fate(state, t) {
  if (state.share[t] > 0) return KEPT;
  if (state.into[t] === t) return STREAM;
  return state.into[t] < 0 ? DROPPED : MERGED;
}
const KINDS = DATA.lens ? [...new Set(DATA.lens.kinds)].sort() : [];
const KIND_COLORS = [[0, 114, 178], [230, 159, 0], [204, 121, 167], [0, 158, 115], [213, 94, 0], [86, 180, 233]];
const kindColor = (kind, alpha) =>
  'rgba(' + KIND_COLORS[KINDS.indexOf(kind) % KIND_COLORS.length].join() + ',' + alpha + ')';
const hue = token => Math.round(token * 137.508 % 360);
function ranked() {
  const cuts = levels[now.level].cuts.filter(c => c.scores !== null && c.layer <= LAYERS[now.layer]);
  return cuts.length ? cuts[cuts.length - 1] : null;
}
function smallest() {
  return Int32Array.from({length: N}, (_, t) => levels.findIndex((_, l) => stateOf(l, now.layer).share[t] > 0));
}
function heat() {
  const heat = new Float32Array(N).fill(NaN);
  if (now.show === 'budget') {
    const last = Math.max(1, levels.length - 1);
    smallest().forEach((l, t) => { if (l >= 0) heat[t] = 1 - l / last; });
    return heat;
  }
  const cut = ranked();
  if (!cut) return heat;
  const known = Array.from(cut.scores.keys()).filter(t => !Number.isNaN(cut.scores[t]));
  if (now.show !== 'value') {
    const groups = now.show === 'rank' ? [known] : views.map((_, i) => known.filter(t => home[t][0] === i));
    for (const group of groups) {
      group.sort((a, b) => cut.scores[a] - cut.scores[b]);
      group.forEach((t, i) => { heat[t] = group.length > 1 ? i / (group.length - 1) : 1; });
    }
    return heat;
  }
  const finite = known.map(t => cut.scores[t]).filter(Number.isFinite);
  const low = Math.min(...finite), high = Math.max(...finite);
  known.forEach(t => { heat[t] = Math.min(1, Math.max(0, (cut.scores[t] - low) / (high - low || 1))); });
  return heat;
}
const RAMP = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
  [170, 220, 50], [253, 231, 37]];
function ramp(x, alpha) {
  const at = x * (RAMP.length - 1), i = Math.min(RAMP.length - 2, Math.floor(at)), f = at - i;
  return 'rgba(' + RAMP[i].map((a, k) => Math.round(a + f * (RAMP[i + 1][k] - a))).join() + ',' + alpha + ')';
}

// -- drawing ---------------------------------------------------------------------------------------------------------
const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function box(view, r, c, wide, high) {
  const x = Math.round(c * wide / view.cols), y = Math.round(r * high / view.rows);
  return [x, y, Math.round((c + 1) * wide / view.cols) - x, Math.round((r + 1) * high / view.rows) - y];
}
function hatch(context, x, y, w, h, step) {
  context.save();
  context.beginPath(); context.rect(x, y, w, h); context.clip();
  context.strokeStyle = color('--hatch'); context.lineWidth = Math.max(1, step / 7);
  context.beginPath();
  for (let d = Math.floor((x + y) / step) * step; d < x + y + w + h; d += step) {
    context.moveTo(d - y, y); context.lineTo(d - y - h, y + h);
  }
  context.stroke(); context.restore();
}
function paint(view, state, warm) {
  const canvas = view.canvas, dots = devicePixelRatio || 1;
  const wide = canvas.width = Math.max(1, Math.round(canvas.clientWidth * dots));
  const high = canvas.height = Math.max(1, Math.round(canvas.clientHeight * dots));
  const context = canvas.getContext('2d'), veil = color('--veil');
  context.imageSmoothingQuality = 'high';
  context.drawImage(view.image, 0, 0, wide, high);
  if (warm) {
    context.globalCompositeOperation = 'saturation'; context.fillStyle = '#808080'; context.fillRect(0, 0, wide, high);
    context.globalCompositeOperation = 'source-over';
  }
  const holders = new Set();
  state.into.forEach((to, t) => { if (to >= 0 && to !== t) holders.add(to); });
  const stays = (r, c) => { const t = (view.cells[r] || [])[c]; return t >= 0 && fate(state, t) === KEPT; };
  let kept = 0, cells = 0;
  const cell = Math.min(wide / view.cols, high / view.rows), thick = Math.max(1.5, Math.min(3 * dots, cell / 9));
  for (let r = 0; r < view.rows; r++) for (let c = 0; c < view.cols; c++) {
    const t = view.cells[r][c], [x, y, w, h] = box(view, r, c, wide, high);
    if (t < 0) {
      context.fillStyle = 'rgba(' + veil + ',.94)'; context.fillRect(x, y, w, h);
      continue;
    }
    cells++;
    const what = fate(state, t);
    kept += what === KEPT;
    if (now.show === 'words') {
      context.fillStyle = 'rgba(' + veil + ',.62)'; context.fillRect(x, y, w, h);
    } else if (now.show === 'classes') {
      context.fillStyle = kindColor(DATA.lens.kinds[t], .66); context.fillRect(x, y, w, h);
    } else if (warm) {
      const known = !Number.isNaN(warm[t]);
      context.fillStyle = known ? ramp(warm[t], .78) : 'rgba(' + veil + ',.86)'; context.fillRect(x, y, w, h);
      if (!known) hatch(context, x, y, w, h, Math.max(5, cell / 3));
    } else if (what === MERGED) {
      context.fillStyle = 'rgba(' + veil + ',.35)'; context.fillRect(x, y, w, h);
      context.fillStyle = 'hsla(' + hue(state.into[t]) + ',85%,50%,.36)'; context.fillRect(x, y, w, h);
    } else {
      const gone = what === KEPT ? 1 - state.share[t] / 255 : 1;
      if (gone) { context.fillStyle = 'rgba(' + veil + ',' + .86 * gone + ')'; context.fillRect(x, y, w, h); }
      if (what !== KEPT) hatch(context, x, y, w, h, Math.max(5, cell / 3));
    }
  }
  if (get('grid').checked) {
    context.strokeStyle = 'rgba(128,134,144,.45)'; context.lineWidth = 1; context.beginPath();
    for (let c = 1; c < view.cols; c++) {
      const x = Math.round(c * wide / view.cols) + .5;
      context.moveTo(x, 0); context.lineTo(x, high);
    }
    for (let r = 1; r < view.rows; r++) {
      const y = Math.round(r * high / view.rows) + .5;
      context.moveTo(0, y); context.lineTo(wide, y);
    }
    context.stroke();
  }
  if (now.show === 'words') {
    context.fillStyle = color('--fg'); context.textAlign = 'center'; context.textBaseline = 'middle';
    context.font = Math.max(7 * dots, Math.min(13 * dots, cell / 3.2)) + 'px system-ui, "DejaVu Sans", sans-serif';
    for (let r = 0; r < view.rows; r++) for (let c = 0; c < view.cols; c++) {
      const t = view.cells[r][c], [x, y, w, h] = box(view, r, c, wide, high);
      if (t >= 0) context.fillText(DATA.lens.words[t][0], x + w / 2, y + h / 2, w - 2);
    }
  }
  if (kept < cells) for (let pass = 0; pass < 2; pass++) {  // a line of its own colour, seen on any image
    context.strokeStyle = pass ? color('--edge') : 'rgba(' + veil + ',.9)'; context.lineWidth = pass ? thick : thick * 2;
    context.beginPath();
    for (let r = 0; r < view.rows; r++) for (let c = 0; c < view.cols; c++) {
      if (!stays(r, c)) continue;
      const [x, y, w, h] = box(view, r, c, wide, high);
      if (!stays(r - 1, c)) { context.moveTo(x, y); context.lineTo(x + w, y); }
      if (!stays(r + 1, c)) { context.moveTo(x, y + h); context.lineTo(x + w, y + h); }
      if (!stays(r, c - 1)) { context.moveTo(x, y); context.lineTo(x, y + h); }
      if (!stays(r, c + 1)) { context.moveTo(x + w, y); context.lineTo(x + w, y + h); }
    }
    context.stroke();
  }
  if (!warm) for (const t of holders) {
    const [i, r, c] = home[t];
    if (views[i] !== view) continue;
    const [x, y, w, h] = box(view, r, c, wide, high);
    context.strokeStyle = 'hsl(' + hue(t) + ',85%,45%)'; context.lineWidth = thick * 1.6;
    context.strokeRect(x + thick, y + thick, w - 2 * thick, h - 2 * thick);
  }
  view.caption.textContent = '\u00b7 ' + (kept === cells ? 'all ' : n(kept) + ' of ') + n(cells) + ' kept';
}
function middle(t) {
  const [i, r, c] = home[t], part = views[i].canvas.getBoundingClientRect(), whole = get('gallery').getBoundingClientRect();
  return [part.left - whole.left + (c + .5) * part.width / views[i].cols,
    part.top - whole.top + (r + .5) * part.height / views[i].rows];
}
function lines(state) {
  const parts = [], warm = now.show !== 'patches', every = get('lines').checked && !warm;
  const own = now.token < 0 ? -1 : state.into[now.token];
  for (let t = 0; t < N; t++) {
    const to = state.into[t];
    if (to < 0 || to === t || !(every || to === own)) continue;
    const [x, y] = middle(t), [u, v] = middle(to), loud = to === own;
    const stroke = 'hsl(' + hue(to) + ',' + (loud ? '95%,42%' : '75%,45%') + ')';
    parts.push('<line x1="' + x.toFixed(1) + '" y1="' + y.toFixed(1) + '" x2="' + u.toFixed(1) + '" y2="' + v.toFixed(1) +
      '" stroke="' + stroke + '" stroke-width="' + (loud ? 2.2 : 1) + '" stroke-opacity="' +
      (loud ? 1 : own >= 0 ? .15 : .55) + '"/><circle cx="' + x.toFixed(1) + '" cy="' + y.toFixed(1) + '" r="' +
      (loud ? 3 : 1.8) + '" fill="' + stroke + '"/>');
  }
  if (now.token >= 0) {
    const [i, r, c] = home[now.token], [x, y] = middle(now.token), part = views[i].canvas.getBoundingClientRect();
    const w = part.width / views[i].cols, h = part.height / views[i].rows;
    parts.push('<rect x="' + (x - w / 2) + '" y="' + (y - h / 2) + '" width="' + w + '" height="' + h +
      '" fill="none" stroke="' + color('--fg') + '" stroke-width="2.5"/>');
  }
  get('over').innerHTML = parts.join('');
}
function legend() {
  const key = (style, text) => '<span><i style="' + style + '"></i>' + text + '</span>';
  const bar = 'background:linear-gradient(90deg,' + RAMP.map(c => 'rgb(' + c.join() + ')').join() + ')';
  const scale = (low, high) => '<span>' + low + '<i class="ramp" style="' + bar + '"></i>' + high + '</span>';
  const outline = key('border:2px solid ' + color('--edge'), 'kept');
  const lost = 'background:repeating-linear-gradient(135deg,var(--card) 0 3px,var(--hatch) 3px 4px)';
  if (now.show === 'budget') {
    const used = levels.map((l, i) => key('background:' + ramp(1 - i / Math.max(1, levels.length - 1), 1), safe(l.label)));
    return '<span>smallest budget that keeps a patch in this layer:</span>' + used.join('') + key(lost, 'none') + outline;
  }
  if (now.show === 'words') {
    return '<span>nearest word of every patch before the first layer; point at one for more</span>' + outline;
  }
  if (now.show === 'classes') {
    const share = kind => n(DATA.lens.kinds.filter(k => k === kind).length);
    return '<span>class of every patch before the first layer:</span>' +
      KINDS.map(kind => key('background:' + kindColor(kind, 1), safe(kind) + ' (' + share(kind) + ')')).join('') + outline;
  }
  if (now.show !== 'patches') {
    const cut = ranked();
    if (!cut) return '<span>Nothing had been ranked before layer ' + LAYERS[now.layer] + ' ran; go to a later layer.</span>';
    const known = Array.from(cut.scores).filter(Number.isFinite);
    const low = known.length ? Math.min(...known) : NaN, high = known.length ? Math.max(...known) : NaN;
    const where = now.show === 'view' ? ' of its view' : '';
    const ends = now.show === 'value' ? [low.toPrecision(3), high.toPrecision(3)] : ['lowest' + where, 'highest' + where];
    return '<span>scores of ' + safe(cut.method) + ' before layer ' + cut.layer + ':</span>' + scale(...ends) +
      key(lost, 'no score') + outline;
  }
  const merges = levels.some(l => l.cuts.some(c => c.merged));
  const partly = levels.some(l => l.states.some(s => s.share.some(x => x > 0 && x < 255)));
  return key('border:2px solid ' + color('--edge'), 'kept') +
    (partly ? '<span>the paler, the fewer heads store it</span>' : '') + key(lost, 'not kept') +
    (views.some(v => v.cells.some(line => line.includes(-1))) ? key('background:var(--bg)', 'cut away by the model') : '') +
    (merges ? key('background:hsla(200,85%,50%,.5)', 'merged, in the colour of the patch that took it in') : '');
}
const stored = state => state.share.reduce((sum, x) => sum + x / 255, 0);
const mean = level => LAYERS.reduce((sum, _, i) => sum + stored(stateOf(level, i)), 0) / LAYERS.length;
function tally(state) {
  const count = [0, 0, 0, 0];
  for (let t = 0; t < N; t++) count[fate(state, t)]++;
  return count;
}
function cutTable() {
  const rows = levels[now.level].cuts.map(c => '<tr><td class="num">' + c.layer + '</td><td>' + safe(c.method) +
    '</td><td class="num">' + n(c.before) + '</td><td class="num">' + n(c.after) + '</td><td class="num">' + n(c.merged) +
    '</td><td>' + (c.scores === null ? 'not given' : 'yes') + '</td></tr>');
  get('cuts').innerHTML = rows.length ? '<table><thead><tr><th class="num">before layer</th><th>method</th>' +
    '<th class="num">visual tokens before</th><th class="num">after</th><th class="num">merged</th><th>scores</th></tr>' +
    '</thead><tbody>' + rows.join('') + '</tbody></table>' : '<p class="dim">The stream was not cut at this budget.</p>';
}
function draw() {
  const state = stateOf(now.level, now.layer), level = levels[now.level], count = tally(state);
  const warm = now.show === 'patches' ? null : heat();
  views.forEach(view => paint(view, state, warm));
  lines(state);
  all('.bars button').forEach(b => {
    const ofLayer = b.dataset.layer !== undefined, i = Number(ofLayer ? b.dataset.layer : b.dataset.level);
    const sum = ofLayer ? stored(stateOf(now.level, i)) : mean(i);
    b.firstChild.style.height = 100 * sum / N + '%';
    b.title = (ofLayer ? 'layer ' + LAYERS[i] : 'budget ' + levels[i].label) + ': ' + n(Math.round(sum * 10) / 10) +
      ' of ' + n(N) + ' visual tokens' + (ofLayer ? '' : ', mean over layers');
    b.classList.toggle('at', i === (ofLayer ? now.layer : now.level));
  });
  all('.ticks button, #levels tr[data-level]').forEach(b => b.classList.toggle('at', Number(b.dataset.level) === now.level));
  get('keep').value = now.level; get('layer').value = now.layer; get('show').value = now.show;
  get('keepName').textContent = level.label; get('layerName').textContent = LAYERS[now.layer];
  get('count').innerHTML = 'Budget <b>' + safe(level.label) + '</b>, layer <b>' + LAYERS[now.layer] +
    '</b>: <b>' + n(count[KEPT]) + '</b> of ' + n(N) + ' visual tokens kept' +
    [[MERGED, ' merged into others'], [DROPPED, ' dropped'], [STREAM, ' ran through, but no head stores them']]
      .filter(([k]) => count[k]).map(([k, text]) => ', ' + n(count[k]) + text).join('') + '.';
  get('legend').innerHTML = legend();
  cutTable();
  const mark = document.documentElement.dataset;
  mark.drawn = ++clock.drawn; mark.level = level.label; mark.layer = LAYERS[now.layer]; mark.show = now.show;
  mark.kept = count[KEPT]; mark.merged = count[MERGED]; mark.dropped = count[DROPPED] + count[STREAM];
}

// -- what is asked for -----------------------------------------------------------------------------------------------
const address = () => '#keep=' + encodeURIComponent(levels[now.level].label) + '&layer=' + LAYERS[now.layer] +
  (now.show === 'patches' ? '' : '&show=' + now.show);
function go(change) {
  Object.assign(now, change);
  hide();
  draw();
  if (location.hash !== address()) location.replace(address());
}
function read() {
  const asked = new URLSearchParams(location.hash.slice(1)), change = {};
  const level = levels.findIndex(l => l.label === asked.get('keep') || Number(l.label) === Number(asked.get('keep') ?? NaN));
  const layer = asked.has('layer') ? LAYERS.indexOf(Number(asked.get('layer'))) : -1;
  const show = all('#show option:not([disabled])').find(o => o.value === asked.get('show'));
  if (level >= 0) change.level = level;
  if (layer >= 0) change.layer = layer;
  change.show = show ? show.value : 'patches';
  return change;
}
function describe(t) {
  const [i, r, c] = home[t], state = stateOf(now.level, now.layer), what = fate(state, t);
  const name = t => views[home[t][0]].name + ', row ' + home[t][1] + ', column ' + home[t][2];
  const text = [name(t) + ' \u2013 token ' + DATA.numbers[t]];
  const members = Array.from(state.into.keys()).filter(u => state.into[u] === t && u !== t);
  const last = levels[now.level].at.map(k => levels[now.level].states[k].share[t] > 0).lastIndexOf(true);
  const heads = Math.round(state.share[t] / 2.55);
  if (what === KEPT) text.push(heads < 100 ? 'stored by ' + heads + '% of the heads' : 'kept');
  if (what === STREAM) text.push('ran through this layer; no head stores it');
  if (what === DROPPED) {
    text.push('dropped' + (last < 0 ? ' before the first layer' : '; last stored in layer ' + LAYERS[last]));
  }
  if (what === MERGED) text.push('merged into ' + name(state.into[t]));
  if (members.length) text.push('holds ' + n(members.length + 1) + ' patches');
  const cut = ranked();
  if (cut && !Number.isNaN(cut.scores[t])) {
    const known = Array.from(cut.scores).filter(x => !Number.isNaN(x));
    text.push('score ' + cut.scores[t].toPrecision(4) + ', place ' + (1 + known.filter(x => x > cut.scores[t]).length) +
      ' of ' + known.length + ' before layer ' + cut.layer);
  }
  const least = smallest()[t];
  if (levels.length > 1) {
    text.push(least < 0 ? 'not kept at any budget here' : 'kept here from budget ' + levels[least].label + ' on');
  }
  if (DATA.lens) {
    const words = DATA.lens.words[t].map((word, i) => word + ' ' + DATA.lens.cosines[t][i].toFixed(2));
    text.push(DATA.lens.name + ': ' + words.join(', ') + (DATA.lens.kinds.length ? '; ' + DATA.lens.kinds[t] : ''));
  }
  return text.join('\n');
}
const tip = get('tip');
function hide() { if (now.token >= 0) { now.token = -1; lines(stateOf(now.level, now.layer)); } tip.hidden = true; }
function point(view, e) {
  const part = view.canvas.getBoundingClientRect();
  const r = Math.floor((e.clientY - part.top) / part.height * view.rows);
  const c = Math.floor((e.clientX - part.left) / part.width * view.cols);
  const t = (view.cells[r] || [])[c];
  if (t === undefined || t === now.token) return;
  if (t < 0) { hide(); return; }
  now.token = t;
  lines(stateOf(now.level, now.layer));
  tip.textContent = describe(t);
  tip.hidden = false;
  const x = part.left + (c + 1) * part.width / view.cols + 10, y = part.top + r * part.height / view.rows;
  tip.style.left = Math.max(4, Math.min(x, document.documentElement.clientWidth - tip.offsetWidth - 8)) + scrollX + 'px';
  tip.style.top = Math.max(4, Math.min(y, innerHeight - tip.offsetHeight - 8)) + scrollY + 'px';
}
views.forEach(view => {
  view.canvas.addEventListener('mousemove', e => point(view, e));
  view.canvas.addEventListener('click', e => point(view, e));
  view.canvas.addEventListener('mouseleave', hide);
});
get('keep').addEventListener('input', e => go({level: Number(e.target.value)}));
get('layer').addEventListener('input', e => go({layer: Number(e.target.value)}));
get('show').addEventListener('change', e => go({show: e.target.value}));
['lines', 'grid'].forEach(id => get(id).addEventListener('change', draw));
all('[data-level]').forEach(b => b.addEventListener('click', () => go({level: Number(b.dataset.level)})));
all('[data-layer]').forEach(b => b.addEventListener('click', () => go({layer: Number(b.dataset.layer)})));
get('lines').parentNode.hidden = !levels.some(l => l.cuts.some(c => c.merged));
get('lines').checked = levels.every(l => l.states.every(s => s.into.filter((to, t) => to >= 0 && to !== t).length <= 300));
addEventListener('keydown', e => {
  const move = {ArrowLeft: ['level', -1], ArrowRight: ['level', 1], ArrowUp: ['layer', 1], ArrowDown: ['layer', -1]}[e.key];
  if (!move || e.target.matches('input, select')) return;
  const last = move[0] === 'level' ? levels.length - 1 : LAYERS.length - 1;
  go({[move[0]]: Math.max(0, Math.min(last, now[move[0]] + move[1]))});
  e.preventDefault();
});
addEventListener('hashchange', () => { if (location.hash !== address()) go(read()); });
addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
Promise.all(views.map(view => { view.image.src = view.image; return view.image.decode(); })).then(() => go(read()));
"""
