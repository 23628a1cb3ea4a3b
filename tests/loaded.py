"""What a process has loaded before it is copied for a command: other people's code, and nothing of ours."""

from __future__ import annotations

import os
import runpy
import sys
from typing import TYPE_CHECKING

import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import optimum.exporters.onnx
import optimum.onnxruntime  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch  # noqa: F401
import transformers.models.auto.modeling_auto
import transformers.models.bert.modeling_bert
import transformers.trainer  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def run(arguments: Sequence[str], folder: Path, outputs: Sequence[Path]) -> None:
    """Be `python -m bertrand ARGUMENTS` in a folder, with standard output and error in files."""
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.argv = ["bertrand", *arguments]
    runpy.run_module("bertrand", run_name="__main__", alter_sys=True)
