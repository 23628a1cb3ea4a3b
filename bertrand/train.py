"""Fine-tune a pretrained BERT on labelled sentences and make a model folder of it."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.settings import CHOICES, Search, TrainConfig

if TYPE_CHECKING:
    import argparse

    from inference.artifact import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; a setting that is not given comes from --config, else from the defaults."""
    defaults = TrainConfig()
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences: .csv, .tsv, .jsonl or .parquet")
    parser.add_argument(
        "--out",
        type=Path,
        help="model folder to make; one that is there is replaced (default: models/ and the name of DATA)",
    )
    parser.add_argument("--dev", type=Path, help="labelled rows to choose the best epoch by (default: a tenth of DATA)")
    parser.add_argument("--test", type=Path, help="labelled rows to measure the finished model on")
    parser.add_argument(
        "--config", type=Path, help="TOML file of settings by their long names, as epochs = 3; options override it"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run of the same --out")
    parser.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="train N times with other settings, and keep what is best on the development rows",
    )
    parser.add_argument("--search-minutes", type=float, metavar="MINUTES", help="begin no further trial after these")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    settings = parser.add_argument_group("settings")
    texts = {
        "base": "hub id, local folder, or minilm, which needs no download",
        "text_column": "column of the sentence",
        "label_column": "column of the label",
        "epochs": "passes over the rows at most; with 100 development rows or more, --patience may end them sooner",
        "patience": "stop after so many epochs that are worse than the best by more than one standard error",
        "learning_rate": "peak of the learning rate in the top layer",
        "head_learning_rate": "peak of the learning rate in the classifier",
        "layer_decay": "learning rate of each layer as a part of that of the layer above",
        "warmup_ratio": "share of the steps in which the learning rate rises",
        "weight_decay": "of AdamW",
        "batch_size": "sentences a step",
        "max_tokens": "longer sentences are cut",
        "detokenize": "treebank: words split as in the Penn Treebank are read as people write them, do n't as don't",
        "seed": "same seed, data, settings, machine and number of threads: same model",
        "dev_share": "share of DATA kept to choose the epoch by, where there is no --dev",
        "folds": "models of a cross-validation, which calibrates and says how good the model is; 0: none",
        "final_epochs": "last passes over all rows, the development rows too, at half the learning rate",
        "pooling": "what the classifier reads: the mean of all tokens, or the first one's vector",
        "init": "what of the base is kept: all, the word embeddings only, or nothing",
        "layers": "lowest layers of the base that are kept",
        "head_start": "how the classifier starts: at random, or fitted on the vectors that the base gives",
        "consistency": "weight of the distance between two passes over a sentence (R-Drop); 0: one pass, half the time",
        "soft_labels": "share of a label that follows what the other rows say of the sentence",
        "self_distillation": "share of a label that follows, in the end, what the model said an epoch before",
        "freeze": "what stays as it was pretrained; encoder: only the classifier learns",
        "min_precision": "share of the answers that must be right, of one label: texts that are less sure get none",
        "teacher": "model folder or checkpoint with the same labels, whose probabilities are learnt too",
        "few_examples": "auto: with under 30 rows a label on average and no --dev, cross-validation chooses how",
        "class_weights": "balanced: every label weighs the same, however rare",
    }
    unset = {
        "layers": (int, "all"),
        "consistency": (float, "1, with more than 20,000 rows 0"),
        "soft_labels": (
            float,
            "0.3; 0 with more than 20,000 rows, several labels, a --teacher or another --init",
        ),
        "self_distillation": (float, "0.5 where labels are soft, otherwise 0"),
        "teacher": (str, "none"),
        "freeze": (str, "embeddings, where they are pretrained"),
        "detokenize": (str, "treebank, where one in a hundred sentences is split so"),
        "epochs": (int, "chosen by the number of rows"),
        "folds": (int, "3 for few examples and with fewer than 100 development rows, otherwise, or with a --dev, 0"),
        "final_epochs": (
            int,
            "chosen by the number of rows; with more than 5,000, several labels a sentence or a --dev 0",
        ),
        "min_precision": (float, "every text gets one"),
    }
    for name, text in texts.items():
        default = getattr(defaults, name)
        kind, shown = unset.get(name, (type(default), default))
        settings.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            choices=[choice for choice in CHOICES[name] if choice] if name in CHOICES else None,
            metavar=None if name in CHOICES else kind.__name__.upper(),
            help=f"{text} (default: {shown})",
        )
    settings.add_argument(
        "--multi-label",
        action="store_true",
        default=None,
        help="a sentence may have any number of labels, joined by | or as a JSON list",
    )


def run(options: argparse.Namespace) -> int:
    """Train and say what came of it."""
    config = _config(options)
    from inference.errors import InputError
    from training.pipeline import train

    out = options.out or Path("models") / options.data.stem
    if options.search is None and options.search_minutes is not None:
        raise InputError("--search-minutes bounds a search; say --search N too")
    search = None if options.search is None else Search(options.search, options.search_minutes)
    manifest = train(
        config, options.data, dev=options.dev, test=options.test, out=out, search=search, resume=options.resume
    )
    if manifest is None:
        return 0  # one of several processes: another one speaks
    if options.json:
        print(json.dumps(summary(manifest, out)))
    else:
        announce(manifest, out)
    return 0


def summary(manifest: Manifest, out: Path) -> dict[str, Any]:
    """Return what was made and how good it is, for JSON."""
    made = {"model": str(out), "version": manifest.version}
    return made | {"metrics": manifest.metrics, "gates": manifest.gates}


def announce(manifest: Manifest, out: Path) -> None:
    """Say on stderr what was made and how good it is."""
    for name, figures in manifest.metrics.items():
        print(
            f"{name}: accuracy {figures['accuracy']:.4f}, macro-F1 {figures['macro_f1']:.4f}, "
            f"calibration error {figures['ece']:.4f} over {figures['rows']} row{'s' * (figures['rows'] != 1)}",
            file=sys.stderr,
        )
    print(
        f"{out}: version {manifest.version}; open {out}/report.html, serve it with `bertrand serve {out}`",
        file=sys.stderr,
    )


def _config(options: argparse.Namespace) -> TrainConfig:
    from inference.errors import InputError

    names = {field.name for field in fields(TrainConfig)}
    values: dict[str, Any] = {}
    if options.config:
        try:
            read = tomllib.loads(options.config.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{options.config}: not a TOML file ({error})") from error
        values = {}
        for name, value in read.items():
            setting = name.replace("-", "_")
            if setting in values:
                spelt = " and ".join(one for one in read if one.replace("-", "_") == setting)
                raise InputError(f"{options.config}: {spelt} are one setting; leave one out")
            values[setting] = value
        if unknown := sorted(values.keys() - names):
            raise InputError(f"{options.config}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(names))}")
    given = vars(options)
    values |= {name: given[name] for name in names if given.get(name) is not None}
    return TrainConfig(**values)
