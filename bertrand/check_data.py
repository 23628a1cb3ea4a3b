"""Say what is wrong with labelled sentences before anything is learnt from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_columns
from training.settings import DEFAULT_BASE, TrainConfig

if TYPE_CHECKING:
    import argparse

    from training.checks import Checked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences: .csv, .tsv, .jsonl or .parquet")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="TEST",
        help="rows to measure on: texts that both have are told, and labels that one lacks",
    )
    parser.add_argument(
        "--clean",
        type=Path,
        metavar="FILE",
        help="write DATA without copies, contradictions and texts of TEST (.csv, .jsonl)",
    )
    parser.add_argument(
        "--label-noise",
        action="store_true",
        help="look for wrong labels in DATA too; the base model reads every text: some minutes for 10,000 rows",
    )
    add_columns(parser)
    parser.add_argument(
        "--multi-label",
        action="store_true",
        help="a sentence may have any number of labels, joined by | or as a JSON list",
    )
    parser.add_argument(
        "--base",
        default=DEFAULT_BASE,
        help="base model whose tokens are counted, and whose vectors --label-noise takes (default: %(default)s)",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=TrainConfig.max_tokens,
        help="tell texts that are longer and would be cut (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Check, print, and return 1 if training would refuse the file."""
    from training.files import check_data

    config = TrainConfig(
        base=options.base,
        max_tokens=options.max_tokens,
        text_column=options.text_column,
        label_column=options.label_column,
        multi_label=options.multi_label,
    )
    checked, cleaned = check_data(
        config, options.data, against=options.against, cleaned=options.clean, label_noise=options.label_noise
    )
    if options.json:
        print(json.dumps(checked.to_json() | {"cleaned_rows": cleaned}, ensure_ascii=False))
    else:
        print(_page(checked))
        if cleaned is not None:
            print(f"\n{options.clean}: the {cleaned} rows worth learning from")
    return 1 if checked.failed else 0


def _page(checked: Checked) -> str:
    summary = checked.summary()
    rows, tokens = summary["rows_of_a_label"], summary["tokens_of_a_text"]
    lines = [
        f"{summary['file']}: {summary['rows']} rows, {summary['labels']} labels "
        f"({rows['least']} to {rows['most']} rows each, median {rows['median']:g}), "
        f"{tokens['least']} to {tokens['most']} tokens a text (median {tokens['median']:g})"
    ]
    for finding in checked.findings:
        lines += ["", f"{finding.level}: {finding.message} [{finding.code}]"]
        lines += [f"    {example}" for example in finding.examples]
    if not checked.findings:
        lines += ["", "nothing found"]
    return "\n".join(lines)
