"""Say which of two models is better on labelled sentences, and whether that is more than chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.evaluate import told_answers, told_graph
from bertrand.options import add_columns, add_precision

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from training.compare import Change, Comparison, Example

SHOWN = 8  # labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "a",
        type=Path,
        metavar="A",
        help="model folder, or a checkpoint such as models/x/checkpoint; it and B know all labels of DATA",
    )
    parser.add_argument(
        "b", type=Path, metavar="B", help="the model to compare it with, of the same kind: one label a row, or several"
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences that neither has learnt from")
    add_precision(parser)
    add_columns(parser)
    parser.add_argument(
        "--examples", type=int, default=0, metavar="N", help="show up to N texts that A alone has right, and N of B"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    from inference.errors import InputError
    from training.finished import compare

    if options.examples < 0:
        raise InputError(f"--examples is {options.examples}; expected 0 or more")
    compared = compare(
        options.a,
        options.b,
        options.data,
        precision=options.precision,
        text_column=options.text_column,
        label_column=options.label_column,
        examples=options.examples,
    )
    if options.json:
        models = {"a": str(options.a), "b": str(options.b), "data": str(options.data)}
        print(json.dumps(models | compared.to_json(), ensure_ascii=False))
    else:
        print("\n".join(_page(options.a, options.b, compared)))
    return 0


def _page(a: Path, b: Path, compared: Comparison) -> Iterator[str]:
    for name, model, graph in (("A", a, compared.graph_a), ("B", b, compared.graph_b)):
        yield f"{name}: {model}, by {told_graph(graph)}"
    if {compared.graph_a, compared.graph_b} > {"int8"}:
        yield "int8 gives some rows another label than fp32 and PyTorch do; --precision fp32 compares the models alone"
    yield f"\n{compared.verdict()}\n"
    yield f"{compared.rows} rows         A       B       B - A, points (95 % interval)"
    yield f"accuracy    {compared.accuracy_a:.4f}  {compared.accuracy_b:.4f}  {_points(compared.accuracy_change)}"
    yield f"macro-F1    {compared.macro_f1_a:.4f}  {compared.macro_f1_b:.4f}  {_points(compared.macro_f1_change)}"
    for name, answered in (("A", compared.answered_a), ("B", compared.answered_b)):
        if answered:
            yield f"{name} {told_answers(answered)}"
    yield (
        f"right: {compared.both} by both, {compared.only_a} by A alone, {compared.only_b} by B alone, "
        f"{compared.neither} by neither"
    )
    differing = [label for label in compared.labels if label.f1_a != label.f1_b or label.only_a or label.only_b]
    if differing:
        width = max(len("label"), *(len(label.label) for label in differing[:SHOWN]))
        yield f"\n{'label':{width}}   rows  A alone  B alone    F1 A    F1 B"
        for label in differing[:SHOWN]:
            yield (
                f"{label.label:{width}}  {label.rows:5}  {label.only_a:7}  {label.only_b:7}  {label.f1_a:.4f}  "
                f"{label.f1_b:.4f}"
            )
        if len(differing) > SHOWN:
            yield f"and {len(differing) - SHOWN} more labels on which they differ less; --json has all"
    yield from _examples("A", compared.only_a_right)
    yield from _examples("B", compared.only_b_right)


def _examples(name: str, examples: Sequence[Example]) -> Iterator[str]:
    if examples:
        yield f"\nright by {name} alone:"
    for example in examples:
        text = " ".join(example.text.split())
        yield f"    {text!r}: {_joined(example.labels)}; A says {_joined(example.a)}, B {_joined(example.b)}"


def _joined(labels: Sequence[str]) -> str:
    return "|".join(labels) or "no label"


def _points(change: Change) -> str:
    return f"{100 * change.value:+.2f} ({100 * change.low:+.2f} to {100 * change.high:+.2f})"
