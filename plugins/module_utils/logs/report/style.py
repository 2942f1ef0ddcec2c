# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the HTML report looks: on a wide or narrow screen, light or dark, and on paper."""

from __future__ import annotations

_LIGHT = """
 color-scheme: light;
 --page: #f3f5f8; --card: #ffffff; --inset: #f6f8fa; --ink: #17202a; --soft: #4f5d6b; --line: #d4dbe3;
 --link: #174a7c; --bar: #5b7186; --bad: #a3231b; --bad-tint: #fdeeec; --warn: #7a4d00; --warn-tint: #fdf4e2;
 --odd: #59349a; --odd-tint: #f3eefc; --good: #17603f; --good-tint: #e7f5ed;
"""
_DARK = """
 color-scheme: dark;
 --page: #10151b; --card: #182029; --inset: #111820; --ink: #e7ecf1; --soft: #a9b6c3; --line: #33404d;
 --link: #8dbff0; --bar: #8296aa; --bad: #ff9b90; --bad-tint: #351c1b; --warn: #f0c274; --warn-tint: #322814;
 --odd: #c9b2f6; --odd-tint: #271f3b; --good: #84d6aa; --good-tint: #142b1f;
"""

STYLE = f"""
:root {{{_LIGHT}}}
@media screen and (prefers-color-scheme: dark) {{ :root {{{_DARK}}} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0; background: var(--page); color: var(--ink); overflow-wrap: anywhere;
 font: 15px/1.5 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
 font-variant-numeric: tabular-nums; }}
header, main, footer {{ max-width: 1120px; margin: 0 auto; padding: 0 20px; }}
header {{ padding-top: 26px; }}
h1 {{ font-size: 28px; line-height: 1.2; margin: 2px 0 6px; letter-spacing: -0.01em; }}
h2 {{ font-size: 18px; line-height: 1.3; margin: 0 0 4px; }}
h3 {{ font-size: 15px; margin: 20px 0 4px; }}
p {{ margin: 0 0 10px; max-width: 110ch; }}
a {{ color: var(--link); }}
bdi {{ unicode-bidi: isolate; }}
.over {{ color: var(--soft); font-weight: 600; margin: 0; }}
.facts {{ color: var(--soft); margin: 0; max-width: none; }}
.facts b {{ color: var(--ink); font-weight: 600; }}
.lead, .none, caption, .small {{ color: var(--soft); }}
.small {{ font-size: 13px; }}
section {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px 20px;
 margin: 16px 0; }}

.verdict {{ border-left-width: 6px; padding: 16px 20px; }}
.verdict h2 {{ font-size: 21px; display: flex; gap: 10px; align-items: center; }}
.verdict h2 svg {{ flex: none; }}
.verdict.look {{ border-left-color: var(--bad); }} .verdict.look h2 svg {{ color: var(--bad); }}
.verdict.blind {{ border-left-color: var(--odd); }} .verdict.blind h2 svg {{ color: var(--odd); }}
.verdict.quiet {{ border-left-color: var(--good); }} .verdict.quiet h2 svg {{ color: var(--good); }}
.findings {{ list-style: none; margin: 10px 0 0; padding: 0; }}
.findings li {{ display: grid; grid-template-columns: 104px 1fr; gap: 12px; padding: 7px 0; align-items: start;
 border-top: 1px solid var(--line); }}
.findings a {{ white-space: nowrap; }}
.kind {{ display: inline-flex; gap: 6px; align-items: center; font-weight: 600; font-size: 13px; line-height: 22px; }}
.kind.look {{ color: var(--bad); }} .kind.blind {{ color: var(--odd); }} .kind.note {{ color: var(--soft); }}

.tiles {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; background: var(--line); margin: 12px 0 0;
 border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }}
.tiles > div {{ background: var(--card); padding: 12px 14px; }}
.tiles dt {{ color: var(--soft); font-weight: 600; font-size: 13px; }}
.tiles dd {{ margin: 0; }}
.tiles .value {{ font-size: 27px; line-height: 1.25; font-weight: 650; letter-spacing: -0.01em; }}
.tiles .some .value {{ color: var(--bad); }}
.tiles .change {{ font-size: 13px; color: var(--soft); line-height: 1.35; }}
.tiles .change.worse {{ color: var(--bad); font-weight: 600; }}
.tiles .change.better {{ color: var(--good); font-weight: 600; }}

svg text {{ font-size: 12px; fill: var(--soft); }}
svg .lane, svg .peak {{ paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }}
svg .lane {{ font-weight: 650; fill: var(--ink); font-size: 13px; }}
.chart {{ display: block; margin-top: 6px; overflow: visible; }}
.bar.bad {{ fill: var(--bad); }} .bar.warn {{ fill: var(--warn); }} .bar.all {{ fill: var(--bar); }}
.bar.before {{ fill: none; stroke: var(--soft); }}
.base {{ stroke: var(--soft); }} .tick {{ stroke: var(--line); }}
.deploy {{ stroke: var(--link); stroke-dasharray: 4 3; }} .flag {{ fill: var(--link); }}
.restart {{ fill: var(--bad); stroke: var(--bad); }} .restart.planned {{ fill: var(--card); stroke: var(--link); }}
.silent {{ fill: url(#hatch); stroke: var(--odd); stroke-dasharray: 2 2; }}
.hatch {{ stroke: var(--odd); fill: none; opacity: 0.55; }}
.range {{ stroke: var(--soft); stroke-width: 2; }} .p50 {{ fill: var(--link); }}
.p95 {{ stroke: var(--ink); stroke-width: 2; }} .p99 {{ fill: none; stroke: var(--bad); stroke-width: 1.6; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 8px 0 0; padding: 0; list-style: none;
 color: var(--soft); font-size: 13px; }}
.legend li {{ display: inline-flex; gap: 6px; align-items: center; }}

.scroll {{ overflow-x: auto; margin-top: 8px; }}
.scroll:focus-visible, summary:focus-visible, a:focus-visible {{ outline: 2px solid var(--link); outline-offset: 2px; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; overflow-wrap: normal; }}
caption {{ text-align: left; font-size: 13px; padding: 0 0 6px; }}
th, td {{ text-align: left; vertical-align: top; padding: 7px 18px 7px 0; border-bottom: 1px solid var(--line); }}
th:last-child, td:last-child {{ padding-right: 0; }}
thead th {{ font-size: 13px; color: var(--soft); font-weight: 600; border-bottom-color: var(--soft);
 vertical-align: bottom; }}
tbody th {{ font-weight: 600; }}
tbody th {{ overflow-wrap: anywhere; min-width: 13em; }} td.long {{ overflow-wrap: anywhere; min-width: 8em; }}
.n {{ text-align: right; white-space: nowrap; }}
td.plot {{ min-width: 130px; width: 24%; }}
td.plot svg {{ display: block; }}
tr.trouble th, tr.trouble .mark {{ color: var(--bad); }}
.icon {{ fill: none; stroke: currentColor; stroke-width: 1.8; }} .quiet .icon {{ stroke-width: 2.6; }}
.route, .log {{ font-size: 13px;
 font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "Liberation Mono", monospace; }}

.messages {{ margin: 10px 0 0; padding: 0; list-style: none; counter-reset: place; }}
.messages > li {{ counter-increment: place; border-top: 1px solid var(--line); padding: 11px 0 10px; display: grid;
 grid-template-columns: 26px minmax(0, 1fr) 190px; gap: 2px 14px; }}
.messages > li::before {{ content: counter(place) "."; color: var(--soft); font-weight: 600; }}
.messages .what {{ grid-column: 2; margin: 0; max-width: none; }}
.messages .much {{ grid-column: 3; grid-row: 1 / span 3; font-size: 13px; color: var(--soft); text-align: right; }}
.messages .much b {{ display: block; font-size: 19px; line-height: 1.25; color: var(--ink); }}
.messages .much svg {{ display: block; margin-bottom: 4px; }}
.messages .when {{ grid-column: 2; margin: 2px 0 0; font-size: 13px; color: var(--soft); max-width: none; }}
.messages details {{ grid-column: 2; margin-top: 2px; }}
summary {{ cursor: pointer; color: var(--link); font-size: 13px; width: fit-content; }}
.badge {{ display: inline-block; font-size: 11.5px; font-weight: 700; letter-spacing: 0.04em; line-height: 18px;
 padding: 0 7px; border-radius: 4px; border: 1.5px solid var(--soft); color: var(--soft); margin-right: 8px; }}
.badge.critical, .badge.error {{ background: var(--bad); border-color: var(--bad); color: var(--card); }}
.badge.critical {{ border-radius: 0; text-decoration: underline; }}
.badge.warning {{ color: var(--warn); border-color: var(--warn); background: var(--warn-tint); }}
.badge.new {{ color: var(--link); border-color: var(--link); border-style: dashed; }}
pre {{ margin: 8px 0 0; padding: 10px 12px; background: var(--inset); border: 1px solid var(--line); border-radius: 6px;
 font: 12.5px/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, "Liberation Mono", monospace;
 white-space: pre-wrap; overflow-wrap: anywhere; overflow: hidden; }}
.silence {{ color: var(--odd); font-weight: 650; }}
ul.plain {{ margin: 6px 0 0; padding: 0 0 0 18px; }}
footer {{ color: var(--soft); font-size: 13px; padding-bottom: 36px; }}

@media screen and (max-width: 760px) {{
 header, main, footer {{ padding-left: 12px; padding-right: 12px; }}
 section {{ padding: 14px; border-radius: 8px; }}
 h1 {{ font-size: 23px; }} .verdict h2 {{ font-size: 18px; align-items: start; }} .verdict h2 svg {{ margin-top: 3px; }}
 .tiles {{ grid-template-columns: repeat(2, 1fr); }} .tiles > div {{ padding: 10px 11px; }}
 .tiles .value {{ font-size: 22px; }}
 .findings li {{ grid-template-columns: 1fr; gap: 0; }}
 .messages > li {{ grid-template-columns: 22px minmax(0, 1fr); }}
 .messages .much {{ grid-column: 2; grid-row: auto; text-align: left; }}
 .messages .much b {{ display: inline; font-size: 15px; }} .messages .much svg {{ margin-top: 6px; }}
 table.cards, .cards tbody, .cards tr, .cards th, .cards td, .cards caption {{ display: block; width: auto; }}
 .cards thead {{ display: none; }}
 .cards tr {{ border-bottom: 1px solid var(--line); padding: 8px 0; }}
 .cards td, .cards tbody th {{ border: 0; padding: 1px 0; text-align: left; }}
 .cards td::before {{ content: attr(data-label) ": "; color: var(--soft); }}
 .cards td.plot {{ width: auto; }} .cards td.plot::before {{ content: none; }}
}}

@page {{ size: A4; margin: 14mm 13mm 16mm;
 @bottom-right {{ content: counter(page) " of " counter(pages); font: 9pt sans-serif; color: #4f5d6b; }} }}
@media print {{
 body {{ background: none; font-size: 10pt; }}
 header, main, footer {{ max-width: none; padding: 0; }}
 section {{ border: 0; border-radius: 0; padding: 0; margin: 0 0 16pt; background: none; }}
 section.verdict {{ border: 1px solid var(--soft); border-left-width: 6px; padding: 10pt; }}
 h1 {{ font-size: 18pt; }} h2 {{ font-size: 13pt; }}
 h1, h2, h3, caption {{ break-after: avoid; }}
 tr, .tiles, .findings li, .chart, .legend {{ break-inside: avoid; }}
 .lead, .chart {{ break-after: avoid; }}
 .messages > li {{ break-inside: avoid; grid-template-columns: 22px minmax(0, 1fr) 130px; }}
 thead {{ display: table-header-group; }}
 .scroll {{ overflow: visible; }}
 .kind, .badge, .bar, .tiles {{ -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
 details::details-content {{ content-visibility: visible; display: block; height: auto; }}
 summary {{ list-style: none; color: var(--soft); }} summary::-webkit-details-marker {{ display: none; }}
 pre, .route, .log {{ font-size: 8pt; }} table, .kind {{ font-size: 8.5pt; }} th, td {{ padding-right: 10px; }}
 td.plot {{ min-width: 80px; }}
 a {{ color: inherit; text-decoration: none; }} .findings a {{ display: none; }}
}}
"""
