"""The tables of a report in Markdown, made from report.json, for documents that quote them."""

from collections.abc import Mapping, Sequence
from typing import Any

from addertrain.report.tables import cell_text, heading


def markdown_table(table: Mapping[str, Any], columns: Sequence[str] | None = None) -> str:
    """A table of report.json in Markdown, with a line for the head, the rule and every row.

    Args:
        columns: the keys of the columns to show, in this order; all of them if not given.

    Raises:
        KeyError: the table has no such column.
    """
    known = {column["key"]: column for column in table["columns"]}
    shown = [known[key] for key in columns] if columns is not None else list(known.values())
    lines = [_line(heading(column) for column in shown), _line("---" for _ in shown)]
    lines += [
        _line(cell_text(row[column["key"]], column["form"]) for column in shown) for row in table["rows"]
    ]
    return "\n".join(lines)


def markdown_report(report: Mapping[str, Any]) -> str:
    """Every table of report.json under its section's title, with its source."""
    parts = [f"# {report['title']}"]
    for section in report["sections"]:
        if not section["tables"]:
            continue
        parts.append(f"## {section['title']}")
        parts.append(section["text"])
        for table in section["tables"]:
            parts += [table["caption"], markdown_table(table)]
        parts.append("\n".join(f"- {_source(source)}" for source in section["source"]))
    return "\n\n".join(parts) + "\n"


def _source(source: Mapping[str, str]) -> str:
    return f"{source['text']}: `{source['command']}`" if source["command"] else source["text"]


def _line(cells: Any) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
