// Counts, bars and the table of cuts; `draw` shows all of `now`.
const stored = state => state.share.reduce((sum, x) => sum + x / 255, 0);
const mean = level => LAYERS.reduce((sum, _, i) => sum + stored(stateOf(level, i)), 0) / LAYERS.length;
function tally(state) {
  const count = [0, 0, 0, 0];
  for (let t = 0; t < N; t++) count[fate(state, t)]++;
  return count;
}
function cutTable() {
  const cell = text => `<td class="num">${text}</td>`;
  const rows = levels[now.level].cuts.map(c => {
    const counts = [c.before, c.after, c.merged].map(count => cell(n(count))).join('');
    return `<tr>${cell(c.layer)}<td>${safe(c.method)}</td>${counts}<td>${c.scores === null ? 'not given' : 'yes'}</td></tr>`;
  });
  get('cuts').innerHTML = rows.length
    ? '<table><thead><tr><th class="num">before layer</th><th>method</th>' +
      `<th class="num">${DATA.kind} tokens before</th><th class="num">after</th><th class="num">merged</th><th>scores</th></tr>` +
      `</thead><tbody>${rows.join('')}</tbody></table>`
    : '<p class="dim">The stream was not cut at this budget.</p>';
}
function draw() {
  const state = stateOf(now.level, now.layer),
    level = levels[now.level],
    count = tally(state);
  const warm = now.show === 'patches' ? null : heat();
  views.forEach(view => paint(view, state, warm));
  lines(state);
  timeline(state);
  all('.bars button').forEach(b => {
    const ofLayer = b.dataset.layer !== undefined,
      i = Number(ofLayer ? b.dataset.layer : b.dataset.level);
    const sum = ofLayer ? stored(stateOf(now.level, i)) : mean(i);
    b.firstChild.style.height = `${(100 * sum) / N}%`;
    const name = ofLayer ? `layer ${LAYERS[i]}` : `budget ${levels[i].label}`;
    b.title = `${name}: ${n(Math.round(sum * 10) / 10)} of ${n(N)} ${DATA.kind} tokens${ofLayer ? '' : ', mean over layers'}`;
    b.classList.toggle('at', i === (ofLayer ? now.layer : now.level));
  });
  all('.ticks button, #levels tr[data-level]').forEach(b => b.classList.toggle('at', Number(b.dataset.level) === now.level));
  get('keep').value = now.level;
  get('layer').value = now.layer;
  get('show').value = now.show;
  get('keepName').textContent = level.label;
  get('layerName').textContent = LAYERS[now.layer];
  const others = [
    [MERGED, 'merged into others'],
    [DROPPED, 'dropped'],
    [STREAM, 'ran through, but no head stores them']
  ].filter(([fate]) => count[fate]);
  get('count').innerHTML =
    `Budget <b>${safe(level.label)}</b>${LAYERS.length > 1 ? `, layer <b>${LAYERS[now.layer]}</b>` : ''}: ` +
    `<b>${n(count[KEPT])}</b> of ${n(N)} ${DATA.kind} tokens kept` +
    `${others.map(([fate, text]) => `, ${n(count[fate])} ${text}`).join('')}.`;
  get('legend').innerHTML = legend();
  cutTable();
  const mark = document.documentElement.dataset;
  mark.drawn = ++clock.drawn;
  mark.level = level.label;
  mark.layer = LAYERS[now.layer];
  mark.show = now.show;
  mark.kept = count[KEPT];
  mark.merged = count[MERGED];
  mark.dropped = count[DROPPED] + count[STREAM];
}
