"""Figures for people: tables in plain text and in Markdown, and verdicts."""

from __future__ import annotations

Table = list[list[str]]  # rows of cells; the first row names the columns
MISSED = "MISSED"  # the verdict on a bound that was not kept


def verdict(value: float, limit: float, *, at_most: bool, digits: int = 3) -> list[str]:
    """Return the cells that say what was measured, what was promised, and whether it was kept."""
    kept = value <= limit if at_most else value >= limit
    return [f"{value:.{digits}f}", f"{'<=' if at_most else '>='} {limit:g}", "kept" if kept else MISSED]


def text_table(rows: Table) -> str:
    """Return aligned columns; words to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(_numeric(cell) for cell in column) for column in zip(*rows[1:], strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(rows: Table) -> str:
    """Return a table in Markdown."""
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest))


def _numeric(cell: str) -> bool:
    return cell.removeprefix("-").replace(".", "").isdigit()
