"""The style sheet of the health page. Its colours follow the system's scheme."""

STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f1; --card: #fff; --line: #dcdad3; --ink: #1c2427; --quiet: #5c666a;
  --good: #2c7a3f; --warn: #8a5a08; --bad: #b3332b; --plot: #0b6e74; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #11171a; --card: #192125; --line: #2d383d; --ink: #e8ecec; --quiet: #9fabb0;
    --good: #6fcf86; --warn: #e5b45c; --bad: #ff8d80; --plot: #6cc5c6; }
}
* { box-sizing: border-box; margin: 0; }
body { padding: 20px 16px; background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
main { max-width: 720px; margin: 0 auto; display: grid; gap: 14px; }
h1 { font-size: 1.375rem; font-weight: 600; border-left: 6px solid var(--tone); padding-left: 12px; }
h1 strong { color: var(--tone); }
h2 { font-size: 1rem; margin-bottom: 6px; }
[data-status="healthy"] { --tone: var(--good); }
[data-status="degraded"] { --tone: var(--warn); }
[data-status="unhealthy"], [data-status="unknown"] { --tone: var(--bad); }
.message, .error { overflow-wrap: anywhere; }
.error { color: var(--bad); font-family: ui-monospace, monospace; font-size: .875rem; }
figure, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
figcaption, .scale { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px; }
figcaption span, .scale { color: var(--quiet); font-size: .8125rem; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: 88px; margin: 6px 0 2px; overflow: visible; }
path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }
.axis { stroke: var(--line); stroke-width: 1; }
.line { stroke: var(--plot); stroke-width: 1.5; }
.dots { stroke: var(--plot); stroke-width: 4; }
.failed { stroke: var(--bad); stroke-width: 3; opacity: .45; stroke-linecap: butt; }
dl > div { display: grid; grid-template-columns: minmax(110px, 2fr) 3fr; gap: 12px; padding: 5px 0;
  border-top: 1px solid var(--line); font-size: .875rem; }
dt { color: var(--quiet); overflow-wrap: anywhere; }
dd { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
footer { color: var(--quiet); font-size: .875rem; }
a { color: var(--plot); margin-left: 6px; }
:focus-visible { outline: 2px solid var(--plot); outline-offset: 2px; }
"""
