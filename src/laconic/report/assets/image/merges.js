// Lines from merged patches to the ones that took them in, and the frame around the patch under the pointer.
function middle(t) {
  const [i, r, c] = home[t],
    part = views[i].canvas.getBoundingClientRect(),
    whole = get('gallery').getBoundingClientRect();
  return [
    part.left - whole.left + ((c + 0.5) * part.width) / views[i].cols,
    part.top - whole.top + ((r + 0.5) * part.height) / views[i].rows
  ];
}
function lines(state) {
  const parts = [],
    warm = now.show !== 'patches',
    every = get('lines').checked && !warm;
  const own = now.token < 0 ? -1 : state.into[now.token];
  for (let t = 0; t < N; t++) {
    const to = state.into[t];
    if (to < 0 || to === t || !(every || to === own)) continue;
    const [x, y] = middle(t),
      [u, v] = middle(to),
      loud = to === own;
    const stroke = `hsl(${hue(to)},${loud ? '95%,42%' : '75%,45%'})`;
    const from = `x1="${x.toFixed(1)}" y1="${y.toFixed(1)}"`,
      end = `x2="${u.toFixed(1)}" y2="${v.toFixed(1)}"`;
    const width = loud ? 2.2 : 1,
      opacity = loud ? 1 : own >= 0 ? 0.15 : 0.55;
    parts.push(`<line ${from} ${end} stroke="${stroke}" stroke-width="${width}" stroke-opacity="${opacity}"/>`);
    parts.push(`<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${loud ? 3 : 1.8}" fill="${stroke}"/>`);
  }
  if (now.token >= 0) {
    const [i] = home[now.token],
      [x, y] = middle(now.token),
      part = views[i].canvas.getBoundingClientRect();
    const w = part.width / views[i].cols,
      h = part.height / views[i].rows;
    const place = `x="${x - w / 2}" y="${y - h / 2}" width="${w}" height="${h}"`;
    parts.push(`<rect ${place} fill="none" stroke="${color('--fg')}" stroke-width="2.5"/>`);
  }
  get('over').innerHTML = parts.join('');
}
