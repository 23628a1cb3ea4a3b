"""Tables that jobs are given, and how to read what they make of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    "i want my money back",
    "where to login",
    "",
    "thank you great app ✓ 谢谢",
    'a "quoted", text\nof two lines',
    "  ",
]
ROWS = [{"id": f"{i:03}", "text": text, "note": "ä,b"} for i, text in enumerate(TEXTS * 3)]


def write(path: Path, rows=ROWS) -> Path:
    """Write rows in the format of the ending."""
    names = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    text = io.StringIO(newline="")
    if ".jsonl" in path.name:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, names, delimiter="\t" if ".tsv" in path.name else ",")
        writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode()
    compress = {".gz": gzip.compress, ".zst": lambda raw: pa.compress(raw, "zstd", asbytes=True)}.get(path.suffix)
    path.write_bytes(compress(content) if compress else content)
    return path


def read(path: Path) -> list[dict]:
    """Read what was written; of CSV, all is text."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    content = path.read_bytes()
    if path.suffix in (".gz", ".zst"):
        content = pa.CompressedInputStream(io.BytesIO(content), {".gz": "gzip", ".zst": "zstd"}[path.suffix]).read()
    if ".jsonl" in path.name:
        return [json.loads(line) for line in content.decode().splitlines()]
    return list(
        csv.DictReader(io.StringIO(content.decode(), newline=""), delimiter="\t" if ".tsv" in path.name else ",")
    )


def many(path: Path, rows: int) -> Path:
    """Write more rows than a part has; every one differs."""
    pick = random.Random(0)
    texts = [text for text in TEXTS if text.strip()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows((i, f"{pick.choice(texts)} {pick.choice(texts)}" if i % 50 else "") for i in range(rows))
    return path


def done_parts(out: Path) -> list[Path]:
    """Return the parts of an unfinished job that are done."""
    return [path for path in (out.parent / f".{out.name}.scoring").glob("part-*-rows=*") if "." not in path.name]
