// The address bar: what is shown can be linked to and reloaded.
const address = () => {
  const show = now.show === 'patches' ? '' : `&show=${now.show}`;
  return `#keep=${encodeURIComponent(levels[now.level].label)}&layer=${LAYERS[now.layer]}${show}`;
};
function go(change) {
  Object.assign(now, change);
  hide();
  draw();
  if (location.hash !== address()) location.replace(address());
}
function read() {
  const asked = new URLSearchParams(location.hash.slice(1)),
    change = {};
  const level = levels.findIndex(l => l.label === asked.get('keep') || Number(l.label) === Number(asked.get('keep') ?? NaN));
  const layer = asked.has('layer') ? LAYERS.indexOf(Number(asked.get('layer'))) : -1;
  const show = all('#show option:not([disabled])').find(o => o.value === asked.get('show'));
  if (level >= 0) change.level = level;
  if (layer >= 0) change.layer = layer;
  change.show = show ? show.value : 'patches';
  return change;
}
