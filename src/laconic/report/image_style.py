"""Style of the page of `laconic inspect --image`."""

STYLE = """
:root { --veil: 253, 253, 252; --edge: #0b63ce; --hatch: rgba(60, 66, 75, .2); }
@media (prefers-color-scheme: dark) { :root { --veil: 22, 24, 28; --edge: #ffd166; --hatch: rgba(200, 208, 220, .17); } }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0 0 1rem; }
.facts dt { color: var(--dim); } .facts dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
#controls { background: var(--bg); border-bottom: 1px solid var(--line); position: sticky; top: 0; z-index: 2;
  display: grid; grid-template-columns: minmax(12rem, 1fr) minmax(16rem, 1.4fr) max-content; gap: .4rem 1.8rem;
  padding: .6rem 0; margin-bottom: 1rem; }
@media (max-width: 50rem) { #controls { grid-template-columns: 1fr; } }
.pick label { display: block; color: var(--dim); } .pick output { color: var(--fg); font-weight: 600; }
.pick input[type=range] { accent-color: var(--accent); display: block; height: 1rem;
  width: calc(100% - 100% / var(--n) + 1rem); margin: .1rem calc(50% / var(--n) - .5rem); }
.pick.small { display: grid; gap: .15rem; align-content: start; }
.bars, .ticks { display: flex; } .bars { align-items: end; height: 2.4rem; }
.bars button, .ticks button { flex: 1 1 0; border: 0; background: none; cursor: pointer; padding: 0; min-width: 0;
  color: var(--dim); }
.bars button { height: 100%; display: flex; align-items: end; border-radius: 2px 2px 0 0; }
.bars button:hover { background: var(--card); }
.bars i { background: rgba(var(--heat), .38); width: 100%; min-height: 1px; margin: 0 .5px; }
.bars button.at i { background: var(--accent); }
.ticks button { font-size: .84em; font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; }
.ticks button.at { color: var(--accent); font-weight: 700; }
#count { grid-column: 1 / -1; font-variant-numeric: tabular-nums; }
#count b { font-weight: 650; }
#gallery { position: relative; display: flex; flex-wrap: wrap; gap: 1.2rem; }
#main.narrow { display: grid; grid-template-columns: minmax(18rem, 34rem) minmax(0, 1fr); gap: 0 1.8rem; }
#main.narrow h2 { margin-top: 0; }
@media (max-width: 60rem) { #main.narrow { display: block; } #main.narrow h2 { margin-top: 2rem; } }
#over { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.item { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; } .item.wide { width: 100%; }
.alone { display: flex; flex-wrap: wrap; gap: .8rem; } .alone figure { width: 15.5rem; } .alone.few figure { width: 27rem; }
#main.narrow :is(.item, .alone, figure) { width: 100%; } [hidden] { display: none !important; }
#levels td:last-child { white-space: nowrap; }
.crops { display: grid; grid-template-columns: repeat(var(--cols), 1fr); gap: 4px; flex: 1 1 28rem; max-width: 44rem; }
figure { margin: 0; max-width: 100%; }
figcaption { color: var(--dim); font-size: .84em; font-variant-numeric: tabular-nums; line-height: 1.5; }
canvas { display: block; width: 100%; border-radius: 3px; cursor: crosshair; background: var(--card); }
#legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; align-items: center; font-size: .9em; max-width: none;
  margin: 0; grid-column: 1 / -1; min-height: 1.6em; }
#legend i { display: inline-block; width: 1rem; height: 1rem; border-radius: 2px; vertical-align: -.2em; margin-right: .4em;
  border: 1px solid var(--line); }
#legend i.ramp { width: 9rem; margin: 0 .5em; }
#levels tbody tr { cursor: pointer; } #levels tbody tr:hover { background: var(--card); }
#levels tr.at { background: var(--card); box-shadow: inset 3px 0 0 var(--accent); }
.answer { white-space: pre-wrap; max-width: 34rem; overflow-wrap: anywhere; }
#tip { position: absolute; z-index: 3; max-width: 25rem; background: var(--card); border: 1px solid var(--accent);
  border-radius: 6px; padding: .4rem .6rem; font-size: .86em; pointer-events: none; white-space: pre-wrap;
  box-shadow: 0 3px 12px rgba(0, 0, 0, .25); font-variant-numeric: tabular-nums; }
"""
