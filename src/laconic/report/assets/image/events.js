// Sliders, keys and the pointer; last, because it draws for the first time.
views.forEach(view => {
  view.canvas.addEventListener('mousemove', e => point(view, e));
  view.canvas.addEventListener('click', e => point(view, e));
  view.canvas.addEventListener('mouseleave', hide);
});
get('keep').addEventListener('input', e => go({ level: Number(e.target.value) }));
get('layer').addEventListener('input', e => go({ layer: Number(e.target.value) }));
get('show').addEventListener('change', e => go({ show: e.target.value }));
['lines', 'grid'].forEach(id => get(id).addEventListener('change', draw));
all('[data-level]').forEach(b => b.addEventListener('click', () => go({ level: Number(b.dataset.level) })));
all('[data-layer]').forEach(b => b.addEventListener('click', () => go({ layer: Number(b.dataset.layer) })));
get('lines').parentNode.hidden = !levels.some(l => l.cuts.some(c => c.merged));
get('lines').checked = levels.every(l => l.states.every(s => s.into.filter((to, t) => to >= 0 && to !== t).length <= 300));
addEventListener('keydown', e => {
  const move = { ArrowLeft: ['level', -1], ArrowRight: ['level', 1], ArrowUp: ['layer', 1], ArrowDown: ['layer', -1] }[
    e.key
  ];
  if (!move || e.target.matches('input, select')) return;
  const last = move[0] === 'level' ? levels.length - 1 : LAYERS.length - 1;
  go({ [move[0]]: Math.max(0, Math.min(last, now[move[0]] + move[1])) });
  e.preventDefault();
});
addEventListener('hashchange', () => {
  if (location.hash !== address()) go(read());
});
addEventListener('resize', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
Promise.all(
  views.map(view => {
    view.bitmap.src = view.image;
    return view.bitmap.decode();
  })
).then(() => go(read()));
