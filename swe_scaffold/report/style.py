"""The look of a page: calm, legible, light or dark as the reader likes it, printable.

One constant, because the page's policy names its hash. Colours are variables; marks on charts carry
classes, never inline styles, which the policy forbids.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfcfa; --panel: #f5f3ee; --ink: #21252b; --muted: #5f656e; --rule: #cfcac0;
  --grid: #e9e6df; --tuned: #1f6b8c; --base: #a59c8e; --hold: #b4531d; --soft: #9cc3d3;
  --third: #d2b48a; --bar: #1f6b8c;
  --s1: #f0eaf6; --s2: #ddcdec; --s3: #c8b0e2; --s4: #b294d8; --s5: #7f49b0; --s6: #4f187f;
  --g1: #e1edf4; --g2: #b9d6e4; --g3: #84b6cf; --g4: #1f6b8c;
  --w1: #fbe8da; --w2: #f5c9a8; --w3: #e59f69; --w4: #a84a17;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17191d; --panel: #1f2227; --ink: #e6e4df; --muted: #a0a5ad; --rule: #454a52;
    --grid: #2b2f35; --tuned: #6fb6d4; --base: #857e74; --hold: #e8925a; --soft: #3d6e83;
    --third: #8f7546; --bar: #39809f;
    --s1: #2b2434; --s2: #3d2f52; --s3: #523b75; --s4: #6a4b99; --s5: #ab8ae0; --s6: #dcc9ff;
    --g1: #1c2d36; --g2: #254353; --g3: #305c72; --g4: #6fb6d4;
    --w1: #382519; --w2: #573621; --w3: #784725; --w4: #e8925a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 49rem; padding: 3rem 2rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word;
}
h1, .verdict {
  font-family: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "Noto Serif", serif;
}
h1 { margin: 0; font-size: 2.1rem; line-height: 1.2; font-weight: 600; overflow-wrap: anywhere; }
h2 { margin: 0 0 .6rem; font-size: 1.15rem; line-height: 1.3; font-weight: 600; }
h3 { margin: 1.4rem 0 .3rem; font-size: .95rem; font-weight: 600; }
p { margin: 0 0 .8rem; text-wrap: pretty; }
header { margin-bottom: 2rem; }
header .kind { margin: 0 0 .4rem; color: var(--muted); font-size: .85rem; letter-spacing: .04em; }
header .about { margin: .6rem 0 0; color: var(--muted); overflow-wrap: anywhere; }
section { margin: 0 0 3rem; padding-top: 1.2rem; border-top: 1px solid var(--rule); }
.verdict {
  margin: 0 0 1.2rem; padding-left: 1rem; border-left: 4px solid var(--base);
  font-size: 1.22rem; line-height: 1.5;
}
.verdict.better { border-color: var(--tuned); }
.verdict.worse { border-color: var(--hold); }
.note, figcaption, .foot { color: var(--muted); font-size: .88rem; }
.note strong { color: var(--ink); }
.ci { display: block; color: var(--muted); font-size: .85em; white-space: nowrap; }
.number { white-space: nowrap; }
code, pre {
  font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: .88em; overflow-wrap: anywhere; unicode-bidi: isolate;
}
pre {
  margin: 0 0 .8rem; padding: .7rem .9rem; background: var(--panel); border-radius: 4px;
  overflow-x: auto; line-height: 1.5;
}
.scroll { overflow-x: auto; margin: 0 0 1rem; }
table {
  width: 100%; border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums;
}
caption { padding-bottom: .4rem; color: var(--muted); font-size: .88rem; text-align: left; }
th, td {
  padding: .38rem .9rem .38rem 0; border-bottom: 1px solid var(--grid); text-align: left;
  vertical-align: top; font-weight: 400; unicode-bidi: isolate;
}
th:last-child, td:last-child { padding-right: 0; }
thead th {
  border-bottom-color: var(--rule); color: var(--muted); font-size: .85rem; vertical-align: bottom;
}
tbody th, td:not(.n) { min-width: 7rem; }
.n { text-align: right; white-space: nowrap; }
thead .n { white-space: normal; }
details { margin: .6rem 0 1rem; }
summary { color: var(--muted); font-size: .88rem; cursor: pointer; }
details[open] > summary { margin-bottom: .7rem; }
figure { margin: 0 0 1.6rem; }
figcaption { margin-top: .4rem; }
.legend {
  display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: 0 0 .5rem; padding: 0;
  list-style: none; color: var(--muted); font-size: .85rem;
}
.key {
  display: inline-block; width: .85rem; height: .6rem; margin-right: .45rem; border-radius: 2px;
  background: currentColor;
}
.key.thin { height: 2px; vertical-align: .25rem; }
.key.round { width: .6rem; border-radius: 50%; border: 2px solid currentColor; }
.key.hollow { background: none; }
.tall { max-height: 26rem; overflow: auto; white-space: pre-wrap; }
.left { color: var(--muted); font-style: italic; }
.tokens { padding: .5rem 0; overflow: auto; max-height: 40rem; line-height: 1.45; }
.line { display: block; width: max-content; min-width: 100%; padding-right: .9rem; }
.line.pair { margin-top: .35rem; }
.gut {
  display: inline-block; position: sticky; left: 0; padding: 0 .7rem 0 .5rem; margin-right: .5rem;
  background: var(--panel); color: var(--muted); border-right: 1px solid var(--rule);
  user-select: none; -webkit-user-select: none;
}
.muted { color: var(--muted); }
.tok { border-radius: 2px; }
.s1 { background: var(--s1); } .s2 { background: var(--s2); } .s3 { background: var(--s3); }
.s4 { background: var(--s4); } .s5 { background: var(--s5); } .s6 { background: var(--s6); }
.g1 { background: var(--g1); } .g2 { background: var(--g2); } .g3 { background: var(--g3); }
.g4 { background: var(--g4); } .w1 { background: var(--w1); } .w2 { background: var(--w2); }
.w3 { background: var(--w3); } .w4 { background: var(--w4); }
.s5, .s6, .g4, .w4 { color: var(--paper); }
.s6, .w3, .w4 { text-decoration: underline dotted; text-underline-offset: .2em; }
.trained { background: var(--g2); }
.steps { display: flex; flex-wrap: wrap; gap: .3rem .5rem; margin: 0 0 .6rem; padding: 0;
  list-style: none; font-size: .8rem; color: var(--muted); }
.steps .tok { padding: .1rem .4rem; }
.steps .s0 { border: 1px solid var(--rule); color: var(--ink); }
.steps .tok { color: var(--ink); }
.steps .s5, .steps .s6, .steps .g4, .steps .w4 { color: var(--paper); }
.in-gold { background: var(--w1); } .in-prediction { background: var(--s1); }
.in-both { background: var(--g1); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums; }
svg text.strong { fill: var(--ink); font-weight: 600; }
svg text.value { fill: var(--ink); font-size: 11px; }
.tuned { color: var(--tuned); } .base { color: var(--base); } .hold { color: var(--hold); }
.soft { color: var(--soft); } .third { color: var(--third); }
.fill { fill: currentColor; } .fill.tuned { fill: var(--bar); }
.grid { stroke: var(--grid); } .rule { stroke: var(--rule); } .zero { stroke: var(--muted); }
.limit { stroke: var(--hold); stroke-dasharray: 3 3; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.line.soft { stroke-width: 1; }
.line.hold { stroke-width: 1.5; }
.dot { fill: currentColor; }
.all { color: var(--ink); } .one { color: var(--tuned); }
.whisker { stroke: currentColor; stroke-width: 1.6; }
.whisker.all { stroke-width: 2.6; }
.whisker.bar { stroke: var(--ink); stroke-width: 1.2; }
.dot.sure, .dot.unsure { stroke: currentColor; stroke-width: 2; }
.dot.unsure { fill: var(--paper); }
.narrow { display: none; max-width: 30rem; }
@media (max-width: 36rem) {
  body { padding: 1.6rem 1rem 3rem; }
  h1 { font-size: 1.6rem; }
  .verdict { font-size: 1.08rem; }
  .wide, .role { display: none; }
  .narrow { display: block; }
  th, td { padding-right: .6rem; }
  table { font-size: .86rem; }
}
@media (min-width: 60rem) {
  .roomy { margin-inline: calc((45rem - min(66rem, 100vw - 4rem)) / 2); }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --panel: #f4f4f4; --ink: #000; --muted: #444; --rule: #aaa; --grid: #ddd;
    --tuned: #1f6b8c; --base: #a59c8e; --hold: #b4531d; --soft: #9cc3d3; --third: #d2b48a;
    --bar: #1f6b8c;
    --s1: #f0eaf6; --s2: #ddcdec; --s3: #c8b0e2; --s4: #b294d8; --s5: #7f49b0; --s6: #4f187f;
    --g1: #e1edf4; --g2: #b9d6e4; --g3: #84b6cf; --g4: #1f6b8c;
    --w1: #fbe8da; --w2: #f5c9a8; --w3: #e59f69; --w4: #a84a17;
  }
  html { font-size: 10.5pt; }
  body { max-width: none; padding: 0; }
  .wide { display: block; }
  .narrow { display: none; }
  figure, tr, .verdict { break-inside: avoid; }
  h2 { break-after: avoid; }
  .tall, .tokens { max-height: none; white-space: pre-wrap; margin-inline: 0; }
  .line { width: auto; }
  .key, .fill, .tok, .line, .trained {
    -webkit-print-color-adjust: exact; print-color-adjust: exact;
  }
  .scroll { overflow: visible; }
  pre { white-space: pre-wrap; }
}
"""
