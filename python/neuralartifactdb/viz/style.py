"""The style sheet of pages and notebook fragments: light and dark, narrow and wide, printable, nothing loaded from outside.

Every rule is below `.nadb`, so that a fragment leaves the notebook around it alone (design section 7, `save_html`, `_repr_html_`).
"""

# ruff: noqa: E501 - a rule of CSS stays on its line

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """\
.nadb{--paper:#faf9f6;--card:#fff;--well:#f3f1ec;--ink:#1a1c22;--soft:#646974;--line:#e5e2da;--accent:#d9480f;
--accent-soft:#fdeee6;--good:#1a7f4e;--good-soft:#e6f4ec;--bad:#b42318;--bad-soft:#fdecea;--shadow:0 1px 2px #1a1c220d,0 6px 20px #1a1c220a;
--sans:"Inter","SF Pro Text","Segoe UI Variable","Segoe UI",system-ui,-apple-system,"Helvetica Neue",Roboto,Arial,sans-serif;
--mono:ui-monospace,"SF Mono","Cascadia Code","JetBrains Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;
color:var(--ink);font:15px/1.55 var(--sans);-webkit-font-smoothing:antialiased;text-rendering:optimizeLegibility}
@media (prefers-color-scheme:dark){.nadb{--paper:#111215;--card:#191b20;--well:#22252b;--ink:#ecebe6;--soft:#a0a5b0;--line:#2d3038;
--accent:#ff8a5c;--accent-soft:#3a2219;--good:#63d39b;--good-soft:#17301f;--bad:#ff9388;--bad-soft:#3a1c1a;--shadow:none}}
.nadb *{box-sizing:border-box}
.nadb.page{margin:0;background:var(--paper);min-height:100vh;color-scheme:light dark}
.nadb main,.nadb>header,.nadb>footer{max-width:1080px;margin:0 auto;padding:0 28px}
.nadb>header{padding-top:56px;padding-bottom:8px}
.nadb .brand{display:flex;align-items:center;gap:9px;font-size:13px;font-weight:600;color:var(--soft);letter-spacing:.01em;margin:0 0 30px}
.nadb .brand svg{width:22px;height:22px;display:block}
.nadb .brand .off{fill:var(--line)}.nadb .brand .lit{fill:var(--accent)}
.nadb h1{font-size:clamp(28px,4.4vw,42px);line-height:1.12;letter-spacing:-.026em;font-weight:680;margin:0;max-width:24em;text-wrap:balance}
.nadb .subtitle{font-size:18px;line-height:1.5;color:var(--soft);margin:14px 0 0;max-width:40em;text-wrap:pretty}
.nadb .facts{display:flex;flex-wrap:wrap;gap:14px 40px;margin:30px 0 0;padding:20px 0 0;border-top:1px solid var(--line)}
.nadb .facts div{display:flex;flex-direction:column-reverse}
.nadb .facts dt{font-size:12.5px;color:var(--soft)}
.nadb .facts dd{margin:0;font-size:20px;font-weight:620;letter-spacing:-.015em;font-variant-numeric:tabular-nums}
.nadb section{margin:34px 0;padding:30px 32px 32px;background:var(--card);border:1px solid var(--line);border-radius:16px;box-shadow:var(--shadow)}
.nadb .eyebrow{font-size:12px;font-weight:650;letter-spacing:.07em;text-transform:uppercase;color:var(--accent);margin:0 0 8px}
.nadb h2{font-size:22px;line-height:1.28;letter-spacing:-.017em;font-weight:650;margin:0;text-wrap:balance}
.nadb h3{font-size:14px;font-weight:650;margin:26px 0 0}
.nadb p{margin:12px 0 0;max-width:68ch}
.nadb .lead,.nadb .note{color:var(--soft);margin-top:8px}
.nadb .note{font-size:13px}
.nadb pre.code{margin:16px 0 0;padding:13px 16px;background:var(--well);border-radius:10px;overflow-x:auto;font:13px/1.6 var(--mono);tab-size:4}
.nadb pre.code .s{color:var(--good)}.nadb pre.code .n{color:var(--accent)}.nadb pre.code .c{color:var(--soft)}.nadb pre.code .k{font-weight:650}
.nadb .gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(112px,1fr));gap:20px 14px;margin:22px 0 0;padding:0;list-style:none}
.nadb .gallery.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr))}
.nadb .card{margin:0;min-width:0;position:relative}
.nadb .card .view{position:relative;background:var(--well);border-radius:10px;overflow:hidden;display:grid;place-items:center}
.nadb .gallery:not(.wide) .view{aspect-ratio:1}
.nadb .card img{display:block;width:100%;height:100%;object-fit:contain}
.nadb img.small{image-rendering:pixelated}
.nadb .overlay{display:block;position:relative;width:100%;aspect-ratio:1;overflow:hidden;background:#000}
.nadb .overlay>span{position:absolute;inset:0}
.nadb .overlay img{position:absolute;inset:0;width:100%;height:100%;object-fit:fill}.nadb .overlay img:first-child{filter:brightness(.62)}
.nadb .overlay img.heat{image-rendering:auto}
.nadb .overlay .frame{position:absolute;border:1.5px solid #fff;border-radius:2px;box-shadow:0 0 0 1px #0008,inset 0 0 0 1px #0005}
.nadb .overlay .frame.dashed{border-style:dashed;border-color:#7fe3ff}
.nadb .card .rank{position:absolute;z-index:1;top:6px;left:6px;font-size:11px;line-height:1;font-weight:650;padding:4px 6px;border-radius:6px;background:#111215b8;color:#fff;font-variant-numeric:tabular-nums}
.nadb .card figcaption{margin-top:8px;font-size:12.5px;line-height:1.4;overflow-wrap:anywhere}
.nadb .card .title{display:flex;justify-content:space-between;gap:6px;font-weight:620;font-variant-numeric:tabular-nums}
.nadb .card .score{font-weight:500;color:var(--accent)}
.nadb .card .line b{font-weight:600;color:var(--ink)}
.nadb .card .line{display:block;color:var(--soft);font-variant-numeric:tabular-nums}
.nadb .card .share{display:block;height:3px;border-radius:2px;background:var(--well);margin-top:8px;overflow:hidden}
.nadb .card .share i{display:block;height:100%;border-radius:2px;background:var(--accent)}
.nadb .card.target .view{box-shadow:0 0 0 2px var(--card),0 0 0 4px var(--accent)}
.nadb .card.good .view{box-shadow:0 0 0 2px var(--good)}.nadb .card.bad .view{box-shadow:0 0 0 2px var(--bad)}
.nadb .card.target .title{color:var(--accent)}.nadb .card.good .title{color:var(--good)}.nadb .card.bad .title{color:var(--bad)}
.nadb .text{padding:14px 16px;font-size:14px;line-height:1.65;white-space:pre-wrap;overflow-wrap:anywhere;place-self:stretch;max-height:22em;overflow:auto}
.nadb .wide .text{padding-top:32px}
.nadb .tokens span{border-radius:3px;padding:1.5px 0;cursor:help}
.nadb .receipt{margin:26px 0 0;border:1px solid var(--line);border-radius:12px;overflow:hidden}
.nadb .receipt .top{display:grid;grid-template-columns:auto minmax(0,1fr);gap:8px 30px;align-items:center;padding:18px 20px 16px}
.nadb .receipt .big{font-size:34px;line-height:1;font-weight:680;letter-spacing:-.03em;color:var(--accent);font-variant-numeric:tabular-nums}
.nadb .receipt .of{font-size:13px;color:var(--soft);margin-top:7px;white-space:nowrap}
.nadb .receipt svg{display:block;width:100%;height:auto;max-height:64px}
.nadb .receipt svg path{fill:none;stroke-linecap:round;stroke-width:6.4;stroke-dasharray:0 10}
.nadb .receipt svg .off{stroke:var(--line)}.nadb .receipt svg .lit{stroke:var(--accent)}
.nadb .receipt .rest{display:flex;flex-wrap:wrap;align-items:center;gap:9px 26px;padding:12px 20px;background:var(--well);font-size:13px;font-variant-numeric:tabular-nums}
.nadb .receipt .rest b{font-weight:640}.nadb .receipt .rest span.item{color:var(--soft)}.nadb .receipt .rest span.item b{color:var(--ink)}
.nadb .receipt .why{padding:11px 20px 13px;margin:0;max-width:none;font-size:13px;color:var(--soft);border-top:1px solid var(--line)}
.nadb .badge{display:inline-flex;align-items:center;gap:5px;font-size:12.5px;line-height:1;font-weight:620;padding:5px 9px;border-radius:99px;white-space:nowrap}
.nadb .badge.good{color:var(--good);background:var(--good-soft)}.nadb .badge.bad{color:var(--bad);background:var(--bad-soft)}
.nadb .badges{display:flex;flex-wrap:wrap;gap:7px}
.nadb .callout{margin:18px 0 0;padding:13px 16px;border-radius:10px;background:var(--bad-soft);color:var(--bad);font-size:14px;max-width:none}
.nadb .callout.plain{background:var(--accent-soft);color:var(--ink)}
.nadb .scroll{overflow-x:auto;margin:20px 0 0}
.nadb table{border-collapse:collapse;font-size:13.5px;line-height:1.4;width:100%;font-variant-numeric:tabular-nums}
.nadb th{text-align:left;font-weight:600;font-size:12.5px;color:var(--soft);padding:7px 26px 7px 0;border-bottom:1px solid var(--line);white-space:nowrap}
.nadb td{text-align:left;padding:8px 26px 8px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
.nadb tr:last-child td{border-bottom:0}
.nadb th.r,.nadb td.r{text-align:right;white-space:nowrap}
.nadb th:last-child,.nadb td:last-child{padding-right:0}
.nadb caption{caption-side:bottom;text-align:left;color:var(--soft);font-size:12.5px;padding-top:9px}
.nadb details{margin:20px 0 0}.nadb summary{cursor:pointer;font-size:13.5px;font-weight:600;color:var(--soft)}
.nadb>footer{padding-top:10px;padding-bottom:52px;font-size:12.5px;color:var(--soft)}
.nadb.fragment{--paper:transparent;--card:transparent;--well:rgb(128 128 128/.1);--ink:inherit;--soft:rgb(128 128 128);--line:rgb(128 128 128/.28);
font-size:13.5px;max-width:860px}
.nadb.fragment .head{display:flex;flex-wrap:wrap;gap:6px 12px;align-items:center;font-weight:620}
.nadb.fragment .head+p{margin-top:6px}
.nadb.fragment pre.code{margin-top:8px;padding:8px 11px}
.nadb.fragment .scroll{margin-top:8px}.nadb.fragment table{width:auto;background:none}
.nadb.fragment td,.nadb.fragment th{padding:4px 22px 4px 0;background:none}
.nadb.fragment .receipt{margin-top:10px}
@media (max-width:640px){.nadb main,.nadb>header,.nadb>footer{padding-left:16px;padding-right:16px}.nadb>header{padding-top:32px}.nadb .brand{margin-bottom:20px}
.nadb section{padding:22px 18px;margin:20px 0;border-radius:13px}.nadb .gallery{grid-template-columns:repeat(auto-fill,minmax(88px,1fr))}
.nadb .receipt .top{grid-template-columns:1fr;gap:14px}}
@media print{.nadb.page{background:#fff}.nadb section{break-inside:avoid;box-shadow:none}}
"""
