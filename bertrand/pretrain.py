"""Pretrain a BERT on raw text by masked words, from a base or from scratch."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from training.settings import SIZES, PretrainConfig

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = PretrainConfig()
    parser.add_argument(
        "corpus",
        type=Path,
        nargs="+",
        metavar="CORPUS",
        help="text: .txt, a sentence a line; or .csv, .tsv, .jsonl, .parquet, whose labels are not read",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make: a base for `bertrand train --base`")
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run of the same --out")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    settings = parser.add_argument_group("settings")
    texts = {
        "base": "hub id, local folder, minilm, which needs no download, or none: from scratch",
        "epochs": "passes over the texts; with --minutes at most",
        "minutes": "time for the whole run: as many steps as fit",
        "learning_rate": "peak of the learning rate",
        "warmup_ratio": "share of the steps in which the learning rate rises",
        "weight_decay": "of AdamW",
        "batch_size": "sentences a step",
        "max_tokens": "longer sentences are cut",
        "mask_share": "share of the tokens that are to be guessed",
        "dropout": "share of the activations that is dropped in training",
        "seed": "same seed, texts and machine: same model",
        "held_out": "share of the texts that is measured on, and not learnt from",
        "measured": "held-out texts, at most, whose pseudo-perplexity is measured",
        "vocabulary": "word pieces of a new tokenizer",
        "layers": "of a model from scratch",
        "hidden": "size of a token's vector, from scratch",
        "heads": "of attention, from scratch",
        "text_column": "column of the sentence",
    }
    unset = {
        "epochs": (int, "20 from scratch, 3 from a base; with --minutes what fits"),
        "minutes": (float, "as long as it takes"),
        "learning_rate": (float, "1e-3 from scratch, 1e-4 from a base"),
        "batch_size": (int, "64 from scratch, 32 from a base"),
        "dropout": (float, "0.1 from scratch, otherwise as the base has it"),
    } | {name: (int, str(value)) for name, value in SIZES.items()}
    for name, text in texts.items():
        default = getattr(defaults, name)
        kind, shown = unset.get(name, (type(default), default))
        settings.add_argument(
            f"--{name.replace('_', '-')}", type=kind, metavar=kind.__name__.upper(), help=f"{text} (default: {shown})"
        )


def run(options: argparse.Namespace) -> int:
    """Pretrain and say what came of it."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    config = PretrainConfig(
        **{field.name: given[field.name] for field in fields(PretrainConfig) if field.name in given}
    )
    from training.pretrain import pretrain

    record = pretrain(config, options.corpus, options.out, resume=options.resume)
    figures = record["pseudo_perplexity"]
    if options.json:
        print(
            json.dumps(
                {"out": str(options.out), "steps": record["steps"], "pseudo_perplexity": figures}, allow_nan=False
            )
        )
        return 0
    before, after = figures["before"]["value"], figures["after"]["value"]
    print(
        f"held-out pseudo-perplexity {before:.1f} before, {after:.1f} after, over {figures['after']['texts']} texts\n"
        f"{options.out}: fine-tune it with `bertrand train DATA --base {options.out}`",
        file=sys.stderr,
    )
    return 0
