#include "reports/html_parts.h"

namespace fla::reports {

// The series colours are Okabe and Ito's, which colour-blind readers can tell apart; markers differ as well.
const char* const kPageStyle = R"css(
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #666; --line: #d8d8d8;
  --good: #00694a; --bad: #b3261e; --warn: #8a5a00; --c0: #0072b2; --c1: #d55e00; --c2: #009e73;
  --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; --c6: #8c6d00; --c7: #777; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --faint: #9a9a9a; --line: #3a3d42; --good: #4cc38a;
    --bad: #ff7b72; --warn: #e3b341; --c0: #56a9e8; --c6: #f0e442; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1.5rem; }
h1 { font-size: 1.2rem; color: var(--faint); } h2 { font-size: 1.4rem; margin: 1.5rem 0 .3rem; }
h3 { margin: 1.6rem 0 .5rem; } p { margin: .2rem 0; } section + section { border-top: 2px solid var(--line); }
.good { color: var(--good); } .bad { color: var(--bad); } .note { color: var(--faint); }
.warnings { color: var(--warn); padding-left: 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid var(--ink); white-space: nowrap; }
.n { text-align: right; white-space: nowrap; }
tbody { border-bottom: 1px solid var(--line); } .cases > tbody > tr:first-child > td { padding-top: .3rem; }
.cases > tbody:target { outline: 2px solid var(--c0); }
.sortable.live > thead th { cursor: pointer; } a { color: inherit; }
summary { color: var(--faint); cursor: pointer; } code { user-select: all; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .4rem 0 .8rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-x: auto; } button { font: inherit; margin-left: .6rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 46rem; } figcaption { font-weight: 600; }
figure > svg { width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 11px; } .axis path { stroke: var(--line); fill: none; }
.series { fill: var(--c); stroke: var(--c); } .series polyline { fill: none; stroke-width: 1.5; }
.series.dashed polyline { stroke-dasharray: 5 4; } .series.dashed > g { fill: var(--paper); }
.series .error { fill: none; stroke: var(--bad); stroke-width: 2.5; } rect { fill: var(--c); }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); }
.s4 { --c: var(--c4); } .s5 { --c: var(--c5); } .s6 { --c: var(--c6); } .s7 { --c: var(--c7); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0; margin: .2rem 0; }
.swatch { display: inline-block; width: 12px; height: 12px; vertical-align: -1px; }
span.swatch { background: var(--c); }
.strip { display: block; } .strip path { stroke: var(--c0); opacity: .45; }
@media print { .filter, button { display: none; } details > * { display: block; } }
)css";

}  // namespace fla::reports
