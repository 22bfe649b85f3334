// The bars of the time line: how much of every frame is kept; a click goes to the frame.
const film = all('.film button').map(bar => ({ bar, view: views[Number(bar.dataset.view)] }));
film.forEach(({ bar, view }) => {
  bar.addEventListener('click', () => view.canvas.scrollIntoView({ behavior: 'smooth', block: 'center', inline: 'center' }));
});
function timeline(state) {
  const most = Math.max(1, ...film.map(({ view }) => view.cells.flat().filter(t => t >= 0).length));
  film.forEach(({ bar, view }) => {
    const tokens = view.cells.flat().filter(t => t >= 0);
    const kept = tokens.filter(t => fate(state, t) === KEPT).length;
    const merged = tokens.filter(t => fate(state, t) === MERGED).length;
    bar.firstChild.style.height = `${(100 * kept) / most}%`;
    const [first, stop] = view.time;
    bar.title =
      `${first.toFixed(2)} to ${stop.toFixed(2)} s: ${n(kept)} of ${n(tokens.length)} kept` +
      `${merged ? `, ${n(merged)} merged` : ''}`;
    bar.dataset.kept = kept;
  });
}
