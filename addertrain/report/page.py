"""A report as one HTML file with embedded figures and style, for light and dark screens and for print."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from addertrain.report.tables import cell_text, heading

_STYLE = """
:root { --paper: #ffffff; --ink: #1b1f24; --quiet: #59636e; --line: #d5dae0; --shade: #f5f7f9;
  --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e4e8ec; --quiet: #9aa5b1; --line: #343b43; --shade: #1d2226;
    --link: #7db8f5; }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; }
a { color: var(--link); }
nav ul { columns: 2 20rem; padding-left: 1.2rem; margin: 1rem 0; }
.quiet, figcaption, caption, .source { color: var(--quiet); font-size: .88rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .3rem .55rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th { font-weight: 600; background: var(--shade); vertical-align: bottom; }
th.text, td.text { text-align: left; }
figure { margin: 1.25rem 0; max-width: 56rem; }
figure img { display: block; width: 100%; height: auto; padding: .5rem;
  background: #ffffff; border-radius: 6px; }
.source { padding-left: 1.1rem; overflow-wrap: anywhere; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  figure, table { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
}
"""


def page(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page of a plain report; `images` are its PNGs by file name."""
    sections = report["sections"]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report['title'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{escape(report['title'])}</h1>",
            f'<p class="quiet">{escape(report["made"])}</p>',
            _contents(sections),
            *(_section(section, images) for section in sections),
            _absent(report["absent"]),
            "</body>\n</html>\n",
        ]
    )


def _contents(sections: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(
        f'<li><a href="#{section["key"]}">{escape(section["title"])}</a></li>' for section in sections
    )
    return f"<nav><ul>{items}</ul></nav>"


def _section(section: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    parts = [
        f'<h2 id="{section["key"]}">{escape(section["title"])}</h2>',
        f"<p>{escape(section['text'])}</p>",
    ]
    # A table that is named like a figure belongs to it.
    named = {Path(picture["file"]).stem for picture in section["pictures"]}
    for picture in section["pictures"]:
        parts.append(_figure(picture, images[picture["file"]]))
        parts += [_table(table) for table in section["tables"] if f"{table['key']}.png" == picture["file"]]
    parts += [_table(table) for table in section["tables"] if table["key"] not in named]
    lines = "".join(f"<li>{_source(source)}</li>" for source in section["source"])
    parts.append(f'<ul class="source">{lines}</ul>')
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _source(source: Mapping[str, str]) -> str:
    command = f"<br><code>{escape(source['command'])}</code>" if source["command"] else ""
    return f"{escape(source['text'])}{command}"


def _figure(picture: Mapping[str, str], png: bytes) -> str:
    caption = escape(picture["caption"])
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: Mapping[str, Any]) -> str:
    columns = [column for column in table["columns"] if column["on_page"]]
    heads = "".join(f"<th{_class(column)}>{escape(heading(column))}</th>" for column in columns)
    rows = "".join(
        "<tr>" + "".join(_cell(row[column["key"]], column) for column in columns) + "</tr>\n"
        for row in table["rows"]
    )
    return (
        f'<div class="scroll"><table>\n<caption>{escape(table["caption"])}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>"
    )


def _class(column: Mapping[str, str]) -> str:
    return ' class="text"' if not column["form"] else ""


def _cell(value: Any, column: Mapping[str, str]) -> str:
    return f"<td{_class(column)}>{escape(cell_text(value, column['form']))}</td>"


def _absent(absent: Sequence[Mapping[str, str]]) -> str:
    if not absent:
        return ""
    items = "".join(
        f"<li><strong>{escape(one['title'])}</strong>: {escape(one['reason'])}</li>" for one in absent
    )
    return (
        f"<section>\n<h2>Not shown</h2>\n<p>What would fill each of these:</p>\n<ul>{items}</ul>\n</section>"
    )
