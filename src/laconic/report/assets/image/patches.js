// One view on its canvas: the image, veiled, tinted or hatched patch by patch, and the outline of what was kept.
const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function box(view, r, c, wide, high) {
  const x = Math.round((c * wide) / view.cols),
    y = Math.round((r * high) / view.rows);
  return [x, y, Math.round(((c + 1) * wide) / view.cols) - x, Math.round(((r + 1) * high) / view.rows) - y];
}
function hatch(context, x, y, w, h, step) {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.strokeStyle = color('--hatch');
  context.lineWidth = Math.max(1, step / 7);
  context.beginPath();
  for (let d = Math.floor((x + y) / step) * step; d < x + y + w + h; d += step) {
    context.moveTo(d - y, y);
    context.lineTo(d - y - h, y + h);
  }
  context.stroke();
  context.restore();
}
function paint(view, state, warm) {
  const canvas = view.canvas,
    dots = devicePixelRatio || 1;
  const wide = Math.max(1, Math.round(canvas.clientWidth * dots));
  const high = Math.max(1, Math.round(canvas.clientHeight * dots));
  canvas.width = wide;
  canvas.height = high;
  const context = canvas.getContext('2d'),
    veil = color('--veil');
  context.imageSmoothingQuality = 'high';
  context.drawImage(view.bitmap, 0, 0, wide, high);
  if (warm) {
    context.globalCompositeOperation = 'saturation';
    context.fillStyle = '#808080';
    context.fillRect(0, 0, wide, high);
    context.globalCompositeOperation = 'source-over';
  }
  const holders = new Set();
  state.into.forEach((to, t) => {
    if (to >= 0 && to !== t) holders.add(to);
  });
  const stays = (r, c) => {
    const t = (view.cells[r] || [])[c];
    return t >= 0 && fate(state, t) === KEPT;
  };
  let kept = 0,
    cells = 0;
  const cell = Math.min(wide / view.cols, high / view.rows),
    thick = Math.max(1.5, Math.min(3 * dots, cell / 9));
  for (let r = 0; r < view.rows; r++)
    for (let c = 0; c < view.cols; c++) {
      const t = view.cells[r][c],
        [x, y, w, h] = box(view, r, c, wide, high);
      if (t < 0) {
        context.fillStyle = `rgba(${veil},.94)`;
        context.fillRect(x, y, w, h);
        continue;
      }
      cells++;
      const what = fate(state, t);
      kept += what === KEPT;
      if (now.show === 'words') {
        context.fillStyle = `rgba(${veil},.62)`;
        context.fillRect(x, y, w, h);
      } else if (now.show === 'classes') {
        context.fillStyle = kindColor(DATA.lens.kinds[t], 0.66);
        context.fillRect(x, y, w, h);
      } else if (warm) {
        const known = !Number.isNaN(warm[t]);
        context.fillStyle = known ? ramp(warm[t], 0.78) : `rgba(${veil},.86)`;
        context.fillRect(x, y, w, h);
        if (!known) hatch(context, x, y, w, h, Math.max(5, cell / 3));
      } else if (what === MERGED) {
        context.fillStyle = `rgba(${veil},.35)`;
        context.fillRect(x, y, w, h);
        context.fillStyle = `hsla(${hue(state.into[t])},85%,50%,.36)`;
        context.fillRect(x, y, w, h);
      } else {
        const gone = what === KEPT ? 1 - state.share[t] / 255 : 1;
        if (gone) {
          context.fillStyle = `rgba(${veil},${0.86 * gone})`;
          context.fillRect(x, y, w, h);
        }
        if (what !== KEPT) hatch(context, x, y, w, h, Math.max(5, cell / 3));
      }
    }
  if (get('grid').checked) {
    context.strokeStyle = 'rgba(128,134,144,.45)';
    context.lineWidth = 1;
    context.beginPath();
    for (let c = 1; c < view.cols; c++) {
      const x = Math.round((c * wide) / view.cols) + 0.5;
      context.moveTo(x, 0);
      context.lineTo(x, high);
    }
    for (let r = 1; r < view.rows; r++) {
      const y = Math.round((r * high) / view.rows) + 0.5;
      context.moveTo(0, y);
      context.lineTo(wide, y);
    }
    context.stroke();
  }
  if (now.show === 'words') {
    context.fillStyle = color('--fg');
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    context.font = `${Math.max(7 * dots, Math.min(13 * dots, cell / 3.2))}px system-ui, "DejaVu Sans", sans-serif`;
    for (let r = 0; r < view.rows; r++)
      for (let c = 0; c < view.cols; c++) {
        const t = view.cells[r][c],
          [x, y, w, h] = box(view, r, c, wide, high);
        if (t >= 0) context.fillText(DATA.lens.words[t][0], x + w / 2, y + h / 2, w - 2);
      }
  }
  if (kept < cells)
    for (let pass = 0; pass < 2; pass++) {
      // a line of its own colour, seen on any image
      context.strokeStyle = pass ? color('--edge') : `rgba(${veil},.9)`;
      context.lineWidth = pass ? thick : thick * 2;
      context.beginPath();
      for (let r = 0; r < view.rows; r++)
        for (let c = 0; c < view.cols; c++) {
          if (!stays(r, c)) continue;
          const [x, y, w, h] = box(view, r, c, wide, high);
          if (!stays(r - 1, c)) {
            context.moveTo(x, y);
            context.lineTo(x + w, y);
          }
          if (!stays(r + 1, c)) {
            context.moveTo(x, y + h);
            context.lineTo(x + w, y + h);
          }
          if (!stays(r, c - 1)) {
            context.moveTo(x, y);
            context.lineTo(x, y + h);
          }
          if (!stays(r, c + 1)) {
            context.moveTo(x + w, y);
            context.lineTo(x + w, y + h);
          }
        }
      context.stroke();
    }
  if (!warm)
    for (const t of holders) {
      const [i, r, c] = home[t];
      if (views[i] !== view) continue;
      const [x, y, w, h] = box(view, r, c, wide, high);
      context.strokeStyle = `hsl(${hue(t)},85%,45%)`;
      context.lineWidth = thick * 1.6;
      context.strokeRect(x + thick, y + thick, w - 2 * thick, h - 2 * thick);
    }
  view.caption.textContent = `\u00b7 ${kept === cells ? 'all ' : `${n(kept)} of `}${n(cells)} kept`;
}
