// The page of `laconic inspect`: colours the text by what was kept, draws the map of layers by tokens, explains a token.
// DATA is written before this script.
const unpack = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const has = (bits, i) => (bits[i >> 3] >> (i & 7)) & 1;
const levels = DATA.levels.map(level => ({
  label: level.label,
  layers: level.layers.map(l => ({ layer: l.layer, heads: l.heads.map(unpack) })),
  stream: level.stream === null ? null : unpack(level.stream),
  streamFrom: level.streamFrom
}));
let now = levels[DATA.start];
const N = DATA.tokens,
  P = DATA.starts.length;
const stop = p => (p + 1 < P ? DATA.starts[p + 1] : N);
const get = id => document.getElementById(id);
const spans = Array.from(document.querySelectorAll('#text s'));
const layerBox = get('layer'),
  headBox = get('head'),
  heat = get('heat'),
  tip = get('tip');
const everything = new Uint8Array((N >> 3) + 1).fill(255);
const chosen = level => level.layers.find(l => String(l.layer) === layerBox.value);

function shareOf(sets) {
  const share = new Float32Array(N);
  for (const bits of sets) for (let i = 0; i < N; i++) share[i] += has(bits, i);
  return share.map(x => x / sets.length);
}
function sets(level) {
  if (layerBox.value === 'stream') return [level.stream || everything];
  const one = chosen(level);
  if (!one) return level.layers.flatMap(l => (headBox.value === 'all' ? l.heads : [l.heads[headBox.value]]));
  return headBox.value === 'all' ? one.heads : [one.heads[headBox.value]];
}
function headOptions() {
  const before = headBox.value || 'all',
    one = chosen(now);
  const count = layerBox.value === 'stream' ? 0 : Math.min(...(one ? [one] : now.layers).map(l => l.heads.length));
  headBox.innerHTML =
    '<option value="all">all heads</option>' +
    Array.from({ length: count }, (_, h) => `<option value="${h}">head ${h}</option>`).join('');
  headBox.value = Number(before) < count ? before : 'all';
  headBox.disabled = count === 0;
}
// Index of the smallest budget at which the chosen heads keep a token, the number of budgets where none does.
function least() {
  const first = new Array(N).fill(levels.length);
  for (let n = levels.length - 1; n >= 0; n--) {
    const share = shareOf(sets(levels[n]));
    for (let i = 0; i < N; i++) if (share[i] > 0) first[i] = n;
  }
  return first;
}
function paint() {
  const share = shareOf(sets(now)),
    byBudget = get('least')?.checked;
  const strength = byBudget ? least().map(n => 1 - n / levels.length) : share;
  let some = 0,
    all = 0;
  for (const x of share) {
    some += x > 0;
    all += x === 1;
  }
  spans.forEach((span, p) => {
    let sum = 0;
    for (let i = DATA.starts[p]; i < stop(p); i++) sum += strength[i];
    const value = sum / (stop(p) - DATA.starts[p]);
    span.style.setProperty('--s', value);
    span.classList.toggle('g', value === 0);
  });
  const n = x => x.toLocaleString('en');
  get('count').textContent =
    some === all ? `${n(some)} of ${n(N)} tokens kept` : `${n(some)} of ${n(N)} tokens kept somewhere, ${n(all)} everywhere`;
  get('most').textContent = byBudget ? `kept at ${levels[0].label}` : 'kept by all';
  const place = levels.length > 1 ? `.${levels.indexOf(now)}` : '';
  location.replace(`#${layerBox.value}.${headBox.value}${place}`);
}
function drawHeat() {
  const rows = now.layers.map(l => [String(l.layer), shareOf(l.heads)]);
  if (now.stream) rows.push(['stream', shareOf([now.stream])]);
  const height = Math.max(6, Math.min(18, Math.floor(340 / rows.length)));
  const width = Math.min(N, Math.max(1, heat.clientWidth));
  heat.width = width;
  heat.height = rows.length;
  heat.style.height = `${rows.length * height}px`;
  const labels = get('labels'),
    every = Math.ceil(12 / height);
  const label = (name, i) => {
    if (i % every && i < rows.length - 1) return '';
    return name === 'stream' ? name : `layer ${name}`;
  };
  labels.innerHTML = rows
    .map(([name], i) => `<div style="height:${height}px;line-height:${height}px">${label(name, i)}</div>`)
    .join('');
  const color = getComputedStyle(document.documentElement).getPropertyValue('--heat').split(',').map(Number);
  const context = heat.getContext('2d'),
    image = context.createImageData(width, rows.length);
  rows.forEach((row, y) => {
    for (let x = 0; x < width; x++) {
      const from = Math.floor((x * N) / width),
        to = Math.max(from + 1, Math.floor(((x + 1) * N) / width));
      let most = 0;
      for (let i = from; i < to; i++) most = Math.max(most, row[1][i]);
      image.data.set([...color, Math.round(most * 235)], 4 * (y * width + x));
    }
  });
  context.putImageData(image, 0, 0);
}
const pieceAt = token => {
  let low = 0,
    high = P - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (DATA.starts[middle] <= token) low = middle;
    else high = middle - 1;
  }
  return low;
};
function describe(p) {
  const from = DATA.starts[p],
    to = stop(p),
    lines = [];
  const range = to - from > 1 ? `tokens ${from}\u2013${to - 1}` : `token ${from}`;
  const text = JSON.stringify(spans[p].textContent.replaceAll('\u21b5\n', '\n'));
  lines.push(`${range}, id ${DATA.ids.slice(from, to).join(' ')}: ${text}`);
  for (let i = from; i < to; i++) {
    const where = [];
    let count = 0,
      total = 0;
    for (const l of now.layers) {
      const heads = l.heads.flatMap((bits, h) => (has(bits, i) ? [h] : []));
      count += heads.length;
      total += l.heads.length;
      if (!heads.length) continue;
      const some = heads.length > 8 ? `${heads.length} of ${l.heads.length} heads` : `head ${heads.join(' ')}`;
      where.push(`layer ${l.layer}: ${heads.length === l.heads.length ? 'all heads' : some}`);
    }
    lines.push(`${to - from > 1 ? `${i}: ` : ''}kept by ${count} of ${total} heads`);
    lines.push(...where.slice(0, 14));
    if (where.length > 14) lines.push(`\u2026 and ${where.length - 14} more layers`);
    if (now.stream) lines.push(has(now.stream, i) ? `travelled on to layer ${now.streamFrom}` : 'did not travel on');
    if (levels.length > 1) {
      const first = levels.find(level => level.layers.some(l => l.heads.some(bits => has(bits, i))));
      lines.push(`smallest budget that keeps it: ${first ? first.label : 'none'}`);
    }
  }
  return lines.join('\n');
}
function showTip(span) {
  tip.textContent = describe(Number(span.dataset.i));
  tip.hidden = false;
  const box = span.getClientRects()[0],
    wide = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(8, Math.min(box.left, wide - tip.offsetWidth - 12)) + scrollX}px`;
  const below = box.bottom + 8,
    fits = below + tip.offsetHeight < innerHeight;
  tip.style.top = `${(fits ? below : Math.max(4, box.top - tip.offsetHeight - 8)) + scrollY}px`;
}
get('text').addEventListener('mouseover', e => {
  const s = e.target.closest('s');
  if (s) showTip(s);
});
get('text').addEventListener('click', e => {
  const s = e.target.closest('s');
  if (s) showTip(s);
});
get('text').addEventListener('mouseleave', () => {
  tip.hidden = true;
});
heat.addEventListener('click', e => {
  const span = spans[pieceAt(Math.floor((e.offsetX / heat.clientWidth) * N))];
  document.querySelectorAll('#text s.at').forEach(s => s.classList.remove('at'));
  span.classList.add('at');
  span.scrollIntoView({ block: 'center' });
  showTip(span);
});
get('only').addEventListener('change', e => get('text').classList.toggle('only', e.target.checked));
layerBox.addEventListener('change', () => {
  headOptions();
  paint();
});
headBox.addEventListener('change', paint);
addEventListener('resize', drawHeat);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawHeat);
function goTo(n) {
  now = levels[n];
  if (levels.length > 1) {
    get('keep').value = n;
    get('keepName').textContent = now.label;
    document.querySelectorAll('#controls .ticks button').forEach((tick, i) => tick.classList.toggle('at', i === n));
    document.querySelectorAll('.counts').forEach((part, i) => part.toggleAttribute('hidden', i !== n));
  }
  tip.hidden = true;
  headOptions();
  paint();
  drawHeat();
}
if (levels.length > 1) {
  get('keep').addEventListener('input', e => goTo(Number(e.target.value)));
  get('least').addEventListener('change', paint);
  document.querySelectorAll('#controls .ticks button').forEach((tick, i) => tick.addEventListener('click', () => goTo(i)));
}
const asked = location.hash.slice(1).split('.');
if (Array.from(layerBox.options).some(o => o.value === asked[0])) layerBox.value = asked[0];
headOptions();
if (Array.from(headBox.options).some(o => o.value === asked[1])) headBox.value = asked[1];
goTo(levels[Number(asked[2])] ? Number(asked[2]) : DATA.start);
