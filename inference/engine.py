"""Token ids to logits and hidden states: one onnxruntime session."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnxruntime as ort

from inference.errors import ArtifactError
from inference.machine import keep_freed_memory
from inference.types import Types

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LOGITS, HIDDEN = "logits", "last_hidden_state"


class Output(NamedTuple):
    """What the model says of one text."""

    logits: NDArray[np.float32]  # shape (labels,)
    hidden: NDArray[np.float32] | None  # shape (tokens, hidden); None when not asked for


class Engine:
    """
    A graph ready to run. Thread-safe: every calling thread computes on its own core, without a pool.

    One thread a call and many callers beats one call over all cores for short texts, and idle pools that spin
    would starve the threads that work.
    """

    def __init__(self, path: Path, pad_id: int, *, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The arena hands the memory that one thread has just freed to another, whose core does not have it in its
        # cache: 4 % of the throughput of two threads in fp32. It also never gives back what the largest batch took.
        options.enable_cpu_mem_arena = False
        keep_freed_memory()
        options.log_severity_level = 3  # errors only
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArtifactError(f"{path}: onnxruntime {ort.__version__} cannot load it ({error})") from error
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        if outputs.keys() != {LOGITS, HIDDEN}:
            raise ArtifactError(
                f"{path}: gives {sorted(outputs)}, expected {LOGITS} and {HIDDEN}; export the model again"
            )
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._pad_id = pad_id
        self.types = Types(path)
        self.label_count = int(outputs[LOGITS][-1])
        self.hidden_size = int(outputs[HIDDEN][-1])

    def run(
        self, batch: Sequence[NDArray[np.int64]], *, hidden: bool = False, options: ort.RunOptions | None = None
    ) -> list[Output]:
        """
        Run one forward pass over texts that are padded to the longest of them.

        Args:
            batch: Token ids of each text, special tokens included.
            hidden: Also return the last hidden state of every real token.
            options: Of this pass; with `terminate` it stops, and raises.
        """
        width = max(map(len, batch))
        input_ids = np.full((len(batch), width), self._pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, ids in enumerate(batch):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(input_ids)
        if not hidden:
            (logits,) = self._session.run([LOGITS], feed, options)
            return [Output(row, None) for row in logits]
        logits, states = self._session.run([LOGITS, HIDDEN], feed, options)
        # Copies: a view would keep the whole padded batch alive for as long as one caller holds one text.
        return [Output(row, state[: len(ids)].copy()) for row, state, ids in zip(logits, states, batch, strict=True)]
