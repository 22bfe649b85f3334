// What the colours mean.
function legend() {
  const key = (style, text) => `<span><i style="${style}"></i>${text}</span>`;
  const bar = `background:linear-gradient(90deg,${RAMP.map(c => `rgb(${c.join()})`).join()})`;
  const scale = (low, high) => `<span>${low}<i class="ramp" style="${bar}"></i>${high}</span>`;
  const outline = key(`border:2px solid ${color('--edge')}`, 'kept');
  const lost = 'background:repeating-linear-gradient(135deg,var(--card) 0 3px,var(--hatch) 3px 4px)';
  if (now.show === 'budget') {
    const used = levels.map((l, i) => key(`background:${ramp(1 - i / Math.max(1, levels.length - 1), 1)}`, safe(l.label)));
    return `<span>smallest budget that keeps a ${PART} in this layer:</span>${used.join('')}${key(lost, 'none')}${outline}`;
  }
  if (now.show === 'words') {
    return `<span>nearest word of every ${PART} before the first layer; point at one for more</span>${outline}`;
  }
  if (now.show === 'classes') {
    const share = kind => n(DATA.lens.kinds.filter(k => k === kind).length);
    const keys = KINDS.map(kind => key(`background:${kindColor(kind, 1)}`, `${safe(kind)} (${share(kind)})`));
    return `<span>class of every ${PART} before the first layer:</span>${keys.join('')}${outline}`;
  }
  if (now.show !== 'patches') {
    const cut = ranked();
    if (!cut) return `<span>Nothing had been ranked before layer ${LAYERS[now.layer]} ran; go to a later layer.</span>`;
    const known = Array.from(cut.scores).filter(Number.isFinite);
    const low = known.length ? Math.min(...known) : NaN,
      high = known.length ? Math.max(...known) : NaN;
    const where = now.show === 'view' ? ' of its view' : '';
    const ends = now.show === 'value' ? [low.toPrecision(3), high.toPrecision(3)] : [`lowest${where}`, `highest${where}`];
    const title = `scores of ${safe(cut.method)} before layer ${cut.layer}:`;
    return `<span>${title}</span>${scale(...ends)}${key(lost, 'no score')}${outline}`;
  }
  const merges = levels.some(l => l.cuts.some(c => c.merged));
  const partly = levels.some(l => l.states.some(s => s.share.some(x => x > 0 && x < 255)));
  return (
    key(`border:2px solid ${color('--edge')}`, 'kept') +
    (partly ? '<span>the paler, the fewer heads store it</span>' : '') +
    key(lost, 'not kept') +
    (views.some(v => v.cells.some(line => line.includes(-1))) ? key('background:var(--bg)', 'cut away by the model') : '') +
    (merges ? key('background:hsla(200,85%,50%,.5)', `merged, in the colour of the ${PART} that took it in`) : '')
  );
}
