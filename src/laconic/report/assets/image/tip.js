// What is known about the patch under the pointer.
function describe(t) {
  const state = stateOf(now.level, now.layer),
    what = fate(state, t);
  const name = t => {
    const [i, r, c] = home[t],
      view = views[i];
    if (DATA.kind !== 'audio') return `${view.name}, row ${r}, column ${c}`;
    const [first, stop] = view.time;
    const begins = first + (c / view.cols) * (stop - first);
    return `${view.name ? `${view.name}, ` : ''}${begins.toFixed(2)} s`;
  };
  const text = [`${name(t)} \u2013 token ${DATA.numbers[t]}`];
  const members = Array.from(state.into.keys()).filter(u => state.into[u] === t && u !== t);
  const last = levels[now.level].at.map(k => levels[now.level].states[k].share[t] > 0).lastIndexOf(true);
  const heads = Math.round(state.share[t] / 2.55);
  if (what === KEPT) text.push(heads < 100 ? `stored by ${heads}% of the heads` : 'kept');
  if (what === STREAM) text.push('ran through this layer; no head stores it');
  if (what === DROPPED) {
    text.push(`dropped${last < 0 ? ' before the first layer' : `; last stored in layer ${LAYERS[last]}`}`);
  }
  if (what === MERGED) text.push(`merged into ${name(state.into[t])}`);
  if (members.length) text.push(`holds ${n(members.length + 1)} ${PART === 'patch' ? 'patches' : 'tokens'}`);
  const cut = ranked();
  if (cut && !Number.isNaN(cut.scores[t])) {
    const known = Array.from(cut.scores).filter(x => !Number.isNaN(x));
    const place = 1 + known.filter(x => x > cut.scores[t]).length;
    text.push(`score ${cut.scores[t].toPrecision(4)}, place ${place} of ${known.length} before layer ${cut.layer}`);
  }
  const least = smallest()[t];
  if (levels.length > 1) {
    text.push(least < 0 ? 'not kept at any budget here' : `kept here from budget ${levels[least].label} on`);
  }
  if (DATA.lens) {
    const words = DATA.lens.words[t].map((word, i) => `${word} ${DATA.lens.cosines[t][i].toFixed(2)}`);
    text.push(`${DATA.lens.name}: ${words.join(', ')}${DATA.lens.kinds.length ? `; ${DATA.lens.kinds[t]}` : ''}`);
  }
  return text.join('\n');
}
const tip = get('tip');
function hide() {
  if (now.token >= 0) {
    now.token = -1;
    lines(stateOf(now.level, now.layer));
  }
  tip.hidden = true;
}
function point(view, e) {
  const part = view.canvas.getBoundingClientRect();
  const r = Math.floor(((e.clientY - part.top) / part.height) * view.rows);
  const c = Math.floor(((e.clientX - part.left) / part.width) * view.cols);
  const t = (view.cells[r] || [])[c];
  if (t === undefined || t === now.token) return;
  if (t < 0) {
    hide();
    return;
  }
  now.token = t;
  lines(stateOf(now.level, now.layer));
  tip.textContent = describe(t);
  tip.hidden = false;
  const x = part.left + ((c + 1) * part.width) / view.cols + 10,
    y = part.top + (r * part.height) / view.rows;
  tip.style.left = `${Math.max(4, Math.min(x, document.documentElement.clientWidth - tip.offsetWidth - 8)) + scrollX}px`;
  tip.style.top = `${Math.max(4, Math.min(y, innerHeight - tip.offsetHeight - 8)) + scrollY}px`;
}
