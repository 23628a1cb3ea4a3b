"""Files to files: what is kept, what is added, what a kill, a resume and a hostile input do."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
import weakref
from itertools import groupby
from typing import Any, ClassVar

import fsspec
import fsspec.implementations.memory
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference import InputError, TextError
from scoring.job import Job, score
from scoring.label import Done
from scoring.output import encode
from scoring.parts import PART_BYTES, PART_ROWS, WINDOW_BYTES, WINDOW_ROWS, windows
from scoring.place import Kind, Place
from scoring.source import BLOCK, CHUNK, _csv, survey
from scoring.state import State
from tests.scoring.tables import ROWS, TEXTS, done_parts, many, read, write
from tests.support import ROOT, run_command, serving, without_int8


@pytest.mark.parametrize("given", ["in.csv", "in.tsv", "in.jsonl", "in.parquet", "in.csv.gz", "in.jsonl.zst"])
@pytest.mark.parametrize("wanted", ["out.csv", "out.tsv.zst", "out.jsonl.gz", "out.parquet"])
def test_every_row_is_kept_and_has_the_answer_of_the_classifier(tmp_path, model_folder, classifier, given, wanted):
    source = write(tmp_path / given)
    summary = score(Job(str(source), str(tmp_path / wanted), model_folder, scores=True))

    assert summary["rows"] == len(ROWS)
    assert summary["errors"] == {"text_empty": 6}
    rows = read(tmp_path / wanted)
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    for row, answer in zip(rows, classifier.classify([row["text"] for row in ROWS]), strict=True):
        if isinstance(answer, TextError):
            assert (row["status"], row["label"] or None, row["score"] or None) == ("error", None, None)
            assert row["error"].startswith("text_empty: ")
            continue
        assert (row["status"], row["label"], row["error"] or None) == ("ok", answer.label, None)
        assert np.float32(row["score"]) == np.float32(answer.score)
        assert int(row["token_count"]) == answer.token_count
        scores = json.loads(row["scores"]) if isinstance(row["scores"], str) else row["scores"]
        assert [(pair["label"], np.float32(pair["score"])) for pair in scores] == [
            (label, np.float32(value)) for label, value in answer.scores
        ]
    assert {path.name for path in tmp_path.iterdir()} == {given, wanted}


def test_a_file_and_the_service_agree_bit_for_bit_in_int8(tmp_path, model_folder):
    """In fp32 the company of a text moves last bits, in a file as in a service."""
    texts = [f"{one} {other}" for one in TEXTS for other in TEXTS if (one + other).strip()]
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    score(Job(str(source), str(tmp_path / "out.parquet"), model_folder, precision="int8"))
    rows = read(tmp_path / "out.parquet")
    with serving(model_folder, "--precision", "int8") as url:
        results = httpx.post(f"{url}/v1/classify", json={"inputs": texts}, timeout=30).json()["results"]
    assert [(row["label"], row["score"]) for row in rows] == [
        (result["label"], float(np.float32(result["score"]))) for result in results
    ]


def test_a_file_of_no_rows_makes_one_of_no_rows(tmp_path, model_folder):
    (tmp_path / "in.csv").write_text("text,id\n")
    score(Job(str(tmp_path / "in.csv"), str(tmp_path / "out.parquet"), model_folder, embeddings="tokens"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 0
    assert table.schema.names[:3] == ["text", "id", "label"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embeddings_are_those_of_analyze(tmp_path, model_folder, classifier, dtype):
    source = write(tmp_path / "in.jsonl")
    for kind in ("sentence", "tokens"):
        out = tmp_path / f"{kind}.parquet"
        score(Job(str(source), str(out), model_folder, embeddings=kind, dtype=dtype))
    sentences, tokens = read(tmp_path / "sentence.parquet"), read(tmp_path / "tokens.parquet")
    for answer, one, other in zip(classifier.analyze([row["text"] for row in ROWS]), sentences, tokens, strict=True):
        if isinstance(answer, TextError):
            assert one["sentence_embedding"] is other["tokens"] is other["token_embeddings"] is None
            continue
        atol = 1e-5 if dtype == "float32" else 5e-3
        np.testing.assert_allclose(one["sentence_embedding"], answer.sentence_embedding, atol=atol, rtol=1e-3)
        np.testing.assert_allclose(other["token_embeddings"], answer.token_embeddings, atol=atol, rtol=1e-3)
        assert [(t["text"], t["start"], t["end"]) for t in other["tokens"]] == [
            (t.text, t.start, t.end) for t in answer.tokens
        ]


def test_what_is_no_text_is_an_error_of_its_row(tmp_path, model_folder):
    values = [None, 5, 1.5, True, ["a"], {"a": 1}, "login page"]
    lines = [json.dumps({"text": value, "id": i}) for i, value in enumerate(values)] + ['{"id": 7}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    summary = score(Job(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), model_folder))

    rows = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == list(range(8))
    assert [row["status"] for row in rows] == ["error"] * 6 + ["ok", "error"]
    assert summary["errors"] == {"text_empty": 2, "text_invalid": 5}
    assert "found list" in rows[4]["error"]
    assert rows[4]["text"] == '["a"]'


def test_json_values_that_have_no_type_in_common_are_kept_as_json(tmp_path, model_folder):
    rows = [
        {"text": "login", "mixed": 1},
        {"text": "app", "mixed": {"a": "ü"}, "late": [1, 2]},
        {"text": "i", "mixed": "s"},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    score(Job(str(tmp_path / "in.jsonl"), str(tmp_path / "out.parquet"), model_folder))
    found = read(tmp_path / "out.parquet")
    assert [row["mixed"] for row in found] == ["1", '{"a": "ü"}', "s"]
    assert [row["late"] for row in found] == [None, [1, 2], None]


@pytest.mark.parametrize("wanted", ["out.parquet", "out.jsonl", "out.csv"])
def test_json_values_that_no_type_holds_exactly_are_kept_as_json(tmp_path, model_folder, wanted):
    """Each in its own batch of rows: a column's type is not known before its last value."""
    rows = [{"text": "login", "hollow": {}, "deep": [{"a": {}}], "huge": 2**64 - 1, "wide": 2**53 + 1, "whole": 1}]
    rows[0] |= {"inner": {"id": 2**60 + 1}, "flag": [True, 1.5]}
    rows += [{"text": "app"}] * 2000
    rows += [{"text": "i", "wide": 0.5, "whole": 0.5, "huge": -1, "inner": {"id": 0.5}, "flag": [0.5]}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    score(Job(str(tmp_path / "in.jsonl"), str(tmp_path / wanted), model_folder))
    found = read(tmp_path / wanted)
    assert (found[0]["inner"], found[0]["flag"]) == ('{"id": 1152921504606846977}', "[true, 1.5]")
    names = ("hollow", "deep", "huge", "wide")
    assert [found[0][name] for name in names] == ["{}", '[{"a": {}}]', "18446744073709551615", "9007199254740993"]
    assert (found[-1]["wide"], found[-1]["huge"]) == ("0.5", "-1")
    assert [float(found[i]["whole"]) for i in (0, -1)] == [1.0, 0.5]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**29 + 1])
def test_integers_beyond_64_bits_are_kept_as_json(tmp_path, number):
    """Alone, among others, within an object and a list; text with as many digits stays text."""
    rows = [{"text": str(number), "alone": number, "among": number, "in": {"a": number}, "list": [number]}]
    rows += [{"text": "login", "among": value, "in": {"a": 1}, "list": [1.5]} for value in (1, 0.5, None)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = pa.Table.from_batches(survey(str(tmp_path / "in.jsonl"), text_column="text").batches()).to_pydict()
    assert table["text"][0] == table["alone"][0] == str(number)
    assert table["among"] == [str(number), "1", "0.5", None]
    assert table["in"] == [f'{{"a": {number}}}', *['{"a": 1}'] * 3]
    assert table["list"] == [f"[{number}]", *["[1.5]"] * 3]


def test_a_folder_and_a_glob_are_one_table_in_alphabetical_order(tmp_path, model_folder):
    folder = tmp_path / "day"
    folder.mkdir()
    for name in ("b.csv", "a.csv", "c.csv.gz", "_SUCCESS", ".hidden"):
        rows = [{"text": "login page", "from": name}] * 3
        write(folder / name, rows) if ".csv" in name else (folder / name).write_text("x")
    for source in (folder, folder / "*.csv*"):
        score(Job(str(source), str(tmp_path / "out.jsonl"), model_folder))
        assert [row["from"] for row in read(tmp_path / "out.jsonl")] == ["a.csv"] * 3 + ["b.csv"] * 3 + ["c.csv.gz"] * 3


def test_a_local_folder_may_have_the_characters_of_a_glob_in_its_name(tmp_path):
    for name in ("day[1]", "day1", "a*"):
        (tmp_path / name / "in[1]").mkdir(parents=True)
        write(tmp_path / name / "in[1]" / "x[2].csv", [{"text": "login", "from": name}])
    for name in ("day[1]", "a*"):
        for place in (tmp_path / name, tmp_path / name / "in[1]", tmp_path / name / "in[1]" / "x[2].csv"):
            (batch,) = survey(str(place), text_column="text").batches()
            assert batch.column("from").to_pylist() == [name]
    assert survey(str(tmp_path / "day?" / "*" / "*.csv"), text_column="text").rows == 1


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_files_of_one_table_may_have_its_columns_in_any_order(tmp_path, format_):
    write(tmp_path / f"a.{format_}", [{"id": "1", "text": "login", "note": "x"}])
    write(tmp_path / f"b.{format_}", [{"note": "y", "text": "page", "id": "2"}])
    source = survey(str(tmp_path), text_column="text")
    found = pa.Table.from_batches(source.batches()).select(["id", "text", "note"])
    assert found.to_pydict() == {"id": ["1", "2"], "text": ["login", "page"], "note": ["x", "y"]}
    if format_ != "jsonl":
        write(tmp_path / f"c.{format_}", [{"note": "y", "text": "page"}])
        with pytest.raises(InputError, match=r"other columns than .*a\.\w+ \(id: string\)"):
            survey(str(tmp_path), text_column="text")


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_a_folder_of_parts_is_the_same_table_and_replaces_that_of_an_earlier_job(tmp_path, model_folder, format_):
    source = many(tmp_path / "in.csv", PART_ROWS["none"] + 10)
    out = tmp_path / "out"
    out.mkdir()
    (out / f"part-000009.{format_}").write_text("of an earlier job, which had more parts")
    score(Job(str(source), f"{out}/", model_folder, output_format=format_))
    score(Job(str(source), str(tmp_path / f"whole.{format_}"), model_folder))

    names = ["_SUCCESS", *(f"part-{number:06}.{format_}" for number in range(2))]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [row for name in names[1:] for row in read(out / name)] == read(tmp_path / f"whole.{format_}")
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out", f"whole.{format_}"}


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, model_folder):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "part-0.csv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "staff").mkdir()
    (tmp_path / "staff" / "part-time.csv").write_text("mine")
    for out, told in [
        ("staff/", "part-time.csv"),
        ("mine/", "notes.txt"),
        ("file/", "is a file"),
        ("in/", "is the input"),
        ("mine", "no format"),
    ]:
        done = run_command("score", tmp_path / "in", f"{tmp_path}/{out}", "--model", model_folder)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert told in done.stderr
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "mine", "file", "staff"}
    assert (tmp_path / "staff" / "part-time.csv").read_text() == "mine"


def opened(out: str, *, resume: bool = False, parts: int = 0) -> State:
    """Open a job of CSV parts as `score` does, with some of them done."""
    state = State.open(Place.of(out), Kind("csv", folder=out.endswith("/")), {"input": "x"}, resume=resume)
    for number in range(parts):
        state.add(Done(number, f"text\n{number}\n".encode(), {"rows": 1}))
    return state


@pytest.mark.parametrize("killed", ["while it gathers", "before the swap", "in the swap", "before it clears up"])
def test_a_folder_is_made_after_a_kill_at_any_step(tmp_path, killed):
    """What a kill leaves: a half-made folder, a whole one, none under the name, or both old and new."""
    out, job = tmp_path / "out", tmp_path / ".out.scoring"
    out.mkdir()
    (out / "part-000000.csv").write_text("of an earlier job")
    with opened(f"{out}/", parts=2):
        (job / "output").mkdir()
        (job / "output" / "part-000000.csv").write_text("text\n0\n")
        if killed in ("in the swap", "before it clears up"):
            out.rename(job / "replaced")
        if killed == "before it clears up":
            (job / "output").rename(out)
    with opened(f"{out}/", resume=True) as state:
        assert len(state.parts) == 2
        state.finish()
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "_SUCCESS": "",
        "part-000000.csv": "text\n0\n",
        "part-000001.csv": "text\n1\n",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_an_output_that_was_being_replaced_comes_back(tmp_path):
    """A job was killed between two renames, and the next one, which is another, fails."""
    with opened(f"{tmp_path}/out/", parts=1):
        (tmp_path / ".out.scoring" / "replaced").mkdir()
        (tmp_path / ".out.scoring" / "replaced" / "part-000000.csv").write_text("earlier")
    with opened(f"{tmp_path}/out/"):
        assert (tmp_path / "out" / "part-000000.csv").read_text() == "earlier"


def test_paths_with_dots_are_the_places_that_they_name(tmp_path, model_folder):
    write(tmp_path / "in.csv")
    (tmp_path / "here").mkdir()
    done = run_command("score", "../in.csv", "./", "--model", model_folder, cwd=tmp_path / "here")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "in which the job was started" in done.stderr
    done = run_command("score", "../in.csv", "../here/../out/", "--model", model_folder, cwd=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "in.csv", "out"]


@pytest.mark.parametrize("out", ["out/", "out.csv"])
def test_nothing_of_an_older_job_gets_into_a_new_one(tmp_path, out):
    """Also where a kill took the record and left the parts, or left a folder that was being made."""
    job = tmp_path / f".{out.strip('/')}.scoring"
    with opened(f"{tmp_path}/{out}", parts=3):
        (job / "output").mkdir()
        (job / "output" / "part-000002.csv").write_text("old")
        (job / "job.json").unlink()
    with opened(f"{tmp_path}/{out}", resume=True, parts=1) as state:
        assert len(state.parts) == 1
        state.finish()
    written = tmp_path / out
    files = sorted(written.iterdir()) if out.endswith("/") else [written]
    assert [path.read_text() for path in files if path.suffix] == ["text\n0\n"]
    assert {path.name for path in tmp_path.iterdir()} == {out.strip("/")}


def test_a_file_is_not_resumed_as_a_folder(tmp_path, model_folder):
    """Each part of a folder has a header; those of a file have one together."""
    source = many(tmp_path / "in.csv", PART_ROWS["none"] + 10)
    job = ["--model", model_folder, "--max-error-rate", "0", "--output-format", "csv"]
    assert run_command("score", source, tmp_path / "out", *job).returncode == 1
    done = run_command("score", source, f"{tmp_path}/out/", *job, "--resume")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "folder was false and is true" in done.stderr


def test_what_comes_into_a_folder_while_a_job_runs_is_kept(tmp_path):
    with opened(f"{tmp_path}/out/", parts=1) as state:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match=r"notes\.txt"):
            state.finish()
        (tmp_path / "out" / "notes.txt").rename(tmp_path / "notes.txt")
        state.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "out"]


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet", "in.csv.gz"])
def test_an_input_that_is_replaced_while_it_is_read_is_noticed(tmp_path, name):
    source = survey(str(write(tmp_path / name)), text_column="text")
    for row in ({"note": "other"}, {"more": "columns"}):
        write(tmp_path / name, [one | row for one in ROWS])
        with pytest.raises(InputError, match="was changed while it was read"):
            list(source.batches())


def test_urls_are_read_and_written(model_folder):
    files = fsspec.filesystem("memory")
    for name in ("a", "b"):
        files.pipe_file(f"/jobs/in/{name}.csv", f"text,from\nlogin page,{name}\n".encode())
    score(Job("memory://jobs/in/*.csv", "memory://jobs/out.jsonl", model_folder))
    rows = [json.loads(line) for line in files.cat_file("/jobs/out.jsonl").splitlines()]
    assert [row["from"] for row in rows] == ["a", "b"]
    assert {row["status"] for row in rows} == {"ok"}
    assert sorted(files.find("/jobs")) == ["/jobs/in/a.csv", "/jobs/in/b.csv", "/jobs/out.jsonl"]


def test_cells_of_megabytes_and_empty_lines_of_one_column_are_rows(tmp_path, model_folder):
    long = "login page " * 500_000
    (tmp_path / "in.csv").write_text(f"text\nlogin\n\n{long}\n")
    score(Job(str(tmp_path / "in.csv"), str(tmp_path / "out.parquet"), model_folder))
    rows = read(tmp_path / "out.parquet")
    assert [row["text"] for row in rows] == ["login", "", long]
    assert [row["truncated"] for row in rows] == [False, None, True]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("of_header", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("name", "written"), [("id", "id"), ('5" pipe', '5" pipe'), ('a"\r\nb', '"a""\r\nb"')])
def test_every_line_after_the_first_is_a_row(tmp_path, ends, of_header, name, written):
    """Whatever ends the lines, and whether a quote in a name is one that quotes."""
    rows = [("login page", "1"), ("a\rb", '2"'), ("c", "3")] * 30_000  # of more than a block
    lines = [",".join(('"a\rb"' if text == "a\rb" else text, other)) for text, other in rows]
    content = f"\ufefftext,{written}{of_header}" + "".join(line + ends for line in lines)
    (tmp_path / "in.csv").write_bytes(content.encode())

    source = survey(str(tmp_path / "in.csv"), text_column="text")
    assert (source.schema.names, source.rows) == (["text", name], len(rows))
    assert source.files[0].sha256 == hashlib.sha256(content.encode()).hexdigest()
    found = pa.Table.from_batches(source.batches())
    assert list(zip(*found.to_pydict().values(), strict=True)) == rows


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_long_rows_make_small_windows(tmp_path, name):
    """Thousands of rows of a window would be gigabytes of them."""
    sizes = [2**16] * 600 + [2**20] * 40 + [10] * 3000 + [WINDOW_BYTES + 1] + [10] * 5000
    write(
        tmp_path / name,
        [{"id": i, "text": random.Random(i).randbytes(8).hex() * (n // 16)} for i, n in enumerate(sizes)],
    )
    source = survey(str(tmp_path / name), text_column="text")
    found = list(windows(source.batches(), "none"))
    assert [int(i) for window in found for i in window.rows["id"].to_pylist()] == list(range(len(sizes)))
    assert max(window.rows.nbytes for window in found if window.rows.num_rows > 1) <= WINDOW_BYTES
    assert max(window.rows.num_rows for window in found) == WINDOW_ROWS["none"]
    for part, group in groupby(found, key=lambda window: window.part):
        assert sum(window.rows.nbytes for window in group) < PART_BYTES + 2 * WINDOW_BYTES, part
    assert len(found) < 10, "they are filled"


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
def test_long_rows_are_read_a_few_at_a_time(tmp_path, name):
    write(tmp_path / name, [{"text": random.Random(i).randbytes(8).hex() * 2**13} for i in range(256)])
    batches = survey(str(tmp_path / name), text_column="text").batches()
    assert max(batch.nbytes for batch in batches) < 2 * CHUNK


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_windows_of_ordinary_rows_have_so_many_rows(tmp_path, name):
    rows = PART_ROWS["none"] + 1000
    write(tmp_path / name, [{"id": i, "text": "login page " * (i % 30)} for i in range(rows)])
    found = list(windows(survey(str(tmp_path / name), text_column="text").batches(), "none"))
    assert [(window.part, window.rows.num_rows) for window in found] == [(0, 4096)] * 4 + [(1, 1000)]


@pytest.mark.parametrize("wanted", ["jsonl", "csv"])
def test_a_part_is_not_made_of_python_objects_as_a_whole(wanted):
    """A number in a list of Python's takes 40 bytes: of token embeddings, 2 MB a row."""
    rows, numbers = 200, 5000
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * numbers, np.float32)), numbers)
    table = pa.table({"id": list(range(rows)), "vector": vectors})
    tracemalloc.start()
    content = encode(table, Kind(wanted, "gzip"), first=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * rows * numbers
    lines = gzip.decompress(content).decode().splitlines()
    found = [json.loads(line) for line in lines] if wanted == "jsonl" else list(csv.DictReader(lines))
    assert [int(row["id"]) for row in found] == list(range(rows))
    found = [row["vector"] if wanted == "jsonl" else json.loads(row["vector"]) for row in found]
    assert found == [[0.0] * numbers] * rows


def test_pipes_on_both_sides(model_folder):
    command = ["score", "-", "-", "--model", model_folder, "--input-format", "jsonl", "--output-format", "csv"]
    done = run_command(*command, stdin='{"text": "login page"}\n{"text": ""}\n')
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["status"] for row in rows] == ["ok", "error"]


@pytest.mark.parametrize(("wanted", "embeddings"), [("out.parquet", "tokens"), ("out.csv.gz", "none")])
def test_a_job_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path, model_folder, wanted, embeddings):
    rows = 4 * PART_ROWS[embeddings] + PART_ROWS[embeddings] // 2
    source = many(tmp_path / "in.csv", rows)
    whole, out = tmp_path / f"whole-{wanted}", tmp_path / wanted
    score(Job(str(source), str(whole), model_folder, embeddings=embeddings))
    command = [sys.executable, "-m", "bertrand", "score", str(source), str(out), "--model", str(model_folder)]
    command += ["--embeddings", embeddings]

    for killed in range(3):
        process = subprocess.Popen([*command, "--resume"], cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if len(done_parts(out)) > killed:
                time.sleep(random.Random(killed).random() / 5)
                process.send_signal(signal.SIGKILL)
                process.wait()
    done = run_command(*command[3:], "--resume", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["rows"] == rows
    assert summary["resumed_rows"] >= PART_ROWS[embeddings]
    assert summary["errors"] == {"text_empty": -(-rows // 50)}
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", f"whole-{wanted}", wanted}


@pytest.fixture
def unfinished(tmp_path, model_folder):
    """A job that ended after its first part, since too many of its rows have no text."""
    rows = PART_ROWS["none"] + 10
    source = tmp_path / "in.csv"
    source.write_text("id,text\n" + "".join(f"{i},\n" for i in range(rows)))
    job = ["score", source, tmp_path / "out.csv", "--model", model_folder, "--max-error-rate", "0.5"]
    done = run_command(*job)
    assert done.returncode == 1, done.stderr
    assert "go on with --resume" in done.stderr
    assert not (tmp_path / "out.csv").exists()
    return job


def test_too_many_errors_end_the_job_and_a_higher_rate_goes_on(unfinished, tmp_path):
    done = run_command(*unfinished[:-1], "1.0", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_rows"] == PART_ROWS["none"]
    assert len(read(tmp_path / "out.csv")) == PART_ROWS["none"] + 10


def test_as_many_errors_as_the_rate_allows_are_not_more(tmp_path, model_folder):
    """.29 of 100 is 28.999999999999996 as floats are multiplied."""
    write(tmp_path / "in.jsonl", [{"text": "" if i < 29 else "login"} for i in range(100)])
    for rate, complete in ((0.29, True), (0.2899, False)):
        job = Job(str(tmp_path / "in.jsonl"), str(tmp_path / "out.csv"), model_folder, max_error_rate=rate)
        assert score(job)["complete"] is complete


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--prefix", "p_"], "columns was"),
        ("model", "model was"),
        (["--text-column", "id"], "text column was"),
        ("input", "input was"),
    ],
)
def test_a_resume_of_another_job_is_refused(unfinished, tmp_path, changed, told):
    if changed == "input":
        with (tmp_path / "in.csv").open("a") as file:
            file.write("9,one more\n")
        changed = []
    if changed == "model":
        changed = ["--model", without_int8(unfinished[4], tmp_path / "other")]
    done = run_command(*unfinished, "--resume", *changed)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / ".out.csv.scoring" / "job.json").exists()


def test_two_jobs_cannot_work_at_one_output(unfinished, tmp_path, model_folder):
    """The first still holds it here; once it is gone, or in the same process after it failed, the way is free."""
    job = Job(str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), model_folder, max_error_rate=0.5)
    place = Place.of(job.output)
    with State.open(place, Kind("csv"), {}, resume=False):
        done = run_command(*unfinished, "--resume")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "another process is working at it" in done.stderr
    assert not score(job)["complete"]
    assert not score(job)["complete"]


def test_a_full_disk_leaves_what_can_be_resumed(tmp_path, model_folder):
    source = many(tmp_path / "in.csv", PART_ROWS["none"] + 2000)
    job = Job(str(source), str(tmp_path / "whole.csv"), model_folder)
    score(job)
    size = (tmp_path / "whole.csv").stat().st_size
    command = ["score", source, tmp_path / "out.csv", "--model", model_folder]
    process = subprocess.run(
        [sys.executable, "-m", "bertrand", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        # What a disk without space does to a write, a limit of the size of files does too.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, size - 1000)),
    )
    assert process.returncode == 2, process.stderr
    assert "go on with --resume" in process.stderr
    assert "Traceback" not in process.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "whole.csv", ".out.csv.scoring"}
    assert run_command(*command, "--resume").returncode == 0
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


HOSTILE = {
    "no_column.csv": (b"words,id\na,1\n", "no column 'text'"),
    "no_column.jsonl": (b'{"words": "a"}\n', "no column 'text'"),
    "ragged.csv": (b"text,id\na,1\nb,2,3\n", "Expected 2 columns, got 3"),
    "open_quote.csv": (b'text,id\n"a,1\nb,2\n', "not a whole csv file"),
    "truncated.csv.gz": (gzip.compress(b"text\n" + bytes(range(97, 123)) * 5000)[:-60], "runcated"),
    "no.csv.gz": (b"text\na\n", "not a whole csv file"),
    "bytes.csv": (b"text\nok\n\xff\xfe\n", "UTF-8"),
    "binary.csv": (b"\xff\xd8\xff\xe0" * 10, "UTF-8"),
    "twice.csv": (b"text,text\na,b\n", "two columns have one name"),
    "empty.csv": (b"", "empty.csv: is empty"),
    "blank.csv": (b"\r\ntext\na\n", "the first line is empty; expected a line with the names"),
    "open_name.csv": (b'text,"id\na,1\nb,2\n', "a quote in the first line, which has the names"),
    "endless.csv": (b"text," * 2**18, "the first line does not end within 1 MB"),
    "wide.csv": (b"x" * 2**18 + b"\na\n", "the first line has no names of columns (field larger"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', "line 2: not valid JSON"),
    "list.jsonl": (b'["a"]\n', "line 1: list; expected one object a line"),
    "no.parquet": (b"text\na\n", "not a whole parquet file"),
    "unknown.txt": (b"text\na\n", "says no format"),
    "taken.csv": (b"text,label\na,b\n", "--prefix"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_input_is_one_line_and_exit_code_2(tmp_path, model_folder, name):
    content, told = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    done = run_command("score", tmp_path / name, tmp_path / "out.csv", "--model", model_folder)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert told in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {name}


class SlowFiles(fsspec.implementations.memory.MemoryFileSystem):
    """Files whose every read takes a while, and that know how many reads are under way."""

    protocol = "slow"
    store: ClassVar[dict[str, Any]] = {}
    under_way = 0

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        return SlowFile(file) if mode == "rb" else file


class SlowFile(io.RawIOBase):
    def __init__(self, content):
        self.content = content

    def readable(self):
        return True

    def readinto(self, buffer):
        SlowFiles.under_way += 1
        time.sleep(0.1)
        count = self.content.readinto(buffer)
        SlowFiles.under_way -= 1
        return count


def test_no_thread_reads_on_once_a_damaged_file_is_reported():
    """Such a thread aborts the process, when the interpreter ends before the thread does."""
    fsspec.register_implementation("slow", SlowFiles, clobber=True)
    files = fsspec.filesystem("slow")
    files.pipe_file("slow://in.csv", b"text,id\n" + b"a,1\n" * 10 + b"b\n" + b"a,1\n" * 2_000_000)
    with pytest.raises(InputError, match="Expected 2 columns, got 1"):
        survey("slow://in.csv", text_column="text")
    assert SlowFiles.under_way == 0


class Traced(np.ndarray):
    """Bytes whose end can be seen."""


def test_no_thread_keeps_what_was_read():
    """Its end takes Python's lock, which aborts the process when the interpreter ends before the thread does."""
    contents, held = [], []

    class Stream(io.BytesIO):
        def read(self, size=-1):
            held.append(sum(content() is not None for content in contents))
            content = np.frombuffer(super().read(size), dtype=np.uint8).view(Traced)
            contents.append(weakref.ref(content))
            return content

    kind = Kind("csv")
    batches = _csv(Stream(b"a,1\n" * 5_000_000), pa.schema({"text": pa.string(), "id": pa.string()}), kind, BLOCK)
    assert sum(batch.num_rows for batch in batches) == 5_000_000
    assert len(held) > 10
    assert not any(held)


def test_parquet_columns_that_hold_no_text(tmp_path, model_folder):
    pq.write_table(pa.table({"text": pa.nulls(3), "id": [1, 2, 3]}), tmp_path / "null.parquet")
    assert score(Job(str(tmp_path / "null.parquet"), str(tmp_path / "out.csv"), model_folder))["errors"] == {
        "text_empty": 3
    }
    pq.write_table(pa.table({"text": [1, 2, 3]}), tmp_path / "int.parquet")
    done = run_command("score", tmp_path / "int.parquet", tmp_path / "out.csv", "--model", model_folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds int64; expected strings" in done.stderr
    twice = pa.table([["a"], ["b"], ["c"]], ["text", "id", "id"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    done = run_command("score", tmp_path / "twice.parquet", tmp_path / "out.csv", "--model", model_folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "two columns have one name" in done.stderr


def test_dictionaries_of_different_values_are_one_column(tmp_path, model_folder):
    """Of 8-bit indices, as categories of pandas have them: each file has its own 100 values, together there are 300."""
    (tmp_path / "in").mkdir()
    narrow = pa.dictionary(pa.int8(), pa.string())
    plain = {"text": [], "list": [], "in": [], "map": [], "view": []}
    for number in range(3):
        texts = [f"login {number} {i}" for i in range(100)]
        lists, structs, maps = [[text] for text in texts], [{"a": text} for text in texts], [[("a", t)] for t in texts]
        table = {
            "text": pa.array(texts).cast(narrow),
            "list": pa.array(lists).cast(pa.list_(narrow)),
            "in": pa.array(structs).cast(pa.struct([("a", narrow)])),
            "map": pa.array(maps, pa.map_(pa.string(), pa.string())).cast(pa.map_(pa.string(), narrow)),
            "view": pa.array(texts, pa.string_view()),
        }
        pq.write_table(pa.table(table), tmp_path / "in" / f"{number}.parquet")
        for name, values in zip(plain, (texts, lists, structs, maps, texts), strict=True):
            plain[name] += values
    score(Job(str(tmp_path / "in"), str(tmp_path / "out.parquet"), model_folder))
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(list(plain)).to_pydict() == plain
    assert found.schema.field("text").type == pa.string()
    assert found["status"].to_pylist() == ["ok"] * 300


@pytest.mark.parametrize("wanted", ["out.csv", "out.jsonl"])
@pytest.mark.parametrize("days", [-719_163, 2_932_897])
def test_values_that_the_output_cannot_hold_are_one_line(tmp_path, model_folder, wanted, days):
    """Arrow writes such a date as `<value out of range>`, or as another."""
    table = pa.table({"text": ["login"], "when": pa.array([days * 86400], pa.timestamp("s", "Europe/Berlin"))})
    pq.write_table(table, tmp_path / "in.parquet")
    done = run_command("score", tmp_path / "in.parquet", tmp_path / wanted, "--model", model_folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"rows that {wanted[4:]} cannot hold: a date {days} days from 1970-01-01" in done.stderr
    score(Job(str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), model_folder))


TIMES = {
    "seconds": (pa.array([-719_162 * 86400, None, 0], pa.timestamp("s")), "0001-01-01 00:00:00"),
    "nanoseconds": (pa.array([10**18 + 1, None, 0], pa.timestamp("ns")), "2001-09-09 01:46:40.000000001"),
    "zone": (pa.array([10**9, None, 0], pa.timestamp("s", "Europe/Berlin")), "2001-09-09 03:46:40+0200"),
    "date": (pa.array([2_932_896, None, 0], pa.date32()), "9999-12-31"),
    "date64": (pa.array([86_400_000, None, 0], pa.date64()), "1970-01-02"),
    "time": (pa.array([1, None, 0], pa.time64("ns")), "00:00:00.000000001"),
    "duration": (pa.array([10**18 + 1, None, 0], pa.duration("ns")), "1000000000000000001"),
}


def test_times_are_the_same_text_in_csv_and_jsonl():
    """Within lists, objects and maps too; whether pandas is there or not, which Python's values of them depend on."""
    table = pa.table({name: times for name, (times, _) in TIMES.items()})
    (row, empty, _) = csv.DictReader(io.StringIO(encode(table, Kind("csv"), first=True).decode()))
    assert row == {name: text for name, (_, text) in TIMES.items()}
    assert set(empty.values()) == {""}
    nested = {
        "list": pa.ListArray.from_arrays([0, 1, 1, 3], TIMES["nanoseconds"][0], mask=pa.array([False, True, False])),
        "struct": pa.StructArray.from_arrays([TIMES["duration"][0]], ["a"]),
        "map": pa.array([[(10**18, 1), (1, None)], None, []], pa.map_(pa.timestamp("ns"), pa.duration("ns"))),
    }
    table = pa.table({**dict(zip(table.schema.names, table.columns, strict=True)), **nested})
    lines = b"".join(encode(table.slice(i, 1), Kind("jsonl"), first=True) for i in range(3)).splitlines()
    assert lines == encode(table, Kind("jsonl"), first=True).splitlines()
    first, second, third = map(json.loads, lines)
    assert first == row | {
        "list": ["2001-09-09 01:46:40.000000001"],
        "struct": {"a": "1000000000000000001"},
        "map": {"2001-09-09 01:46:40.000000000": "1", "1970-01-01 00:00:00.000000001": None},
    }
    assert {str(value) for value in second.values()} == {"None", "{'a': None}"}
    assert (third["list"], third["map"]) == ([None, "1970-01-01 00:00:00.000000000"], {})


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2)])
def test_bytes_are_hexadecimal_digits(kind):
    table = pa.table({"key": pa.array([b"\xff\x00", None], kind), "id": [1, 2]})
    lines = encode(table, Kind("csv"), first=True).decode().splitlines()
    assert [row["key"] for row in csv.DictReader(lines)] == ["ff00", ""]
    lines = encode(table, Kind("jsonl"), first=True).splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["ff00", None]


def test_the_input_is_never_overwritten_and_an_unwritable_output_is_told_at_once(tmp_path, model_folder):
    source = write(tmp_path / "in.csv")
    before = source.read_bytes()
    (tmp_path / "link.csv").symlink_to(source)
    for out, told in [
        (source, "is the input"),
        (tmp_path / "link.csv", "is the input"),
        (tmp_path / "none" / "out.csv", "there is no such folder"),
        (tmp_path, "says no format"),
        ("/proc/out.csv", "/proc"),
        ("/proc/sys/", "/proc/sys: holds"),
        ("nowhere://bucket/out.csv", "nowhere"),
    ]:
        done = run_command("score", source, out, "--model", model_folder)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert told in done.stderr
    assert source.read_bytes() == before
    metrics = ["--metrics-file", tmp_path / "none" / "job.prom"]
    done = run_command("score", source, tmp_path / "out.csv", "--model", model_folder, *metrics)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_figures_for_monitoring(tmp_path, model_folder):
    source = write(tmp_path / "in.csv")
    score(Job(str(source), str(tmp_path / "out.csv"), model_folder, metrics_file=tmp_path / "job.prom"))
    figures = (tmp_path / "job.prom").read_text()
    assert 'bertrand_score_rows{outcome="ok"} 12.0' in figures
    assert 'bertrand_score_rows{outcome="text_empty"} 6.0' in figures
    assert "bertrand_score_complete 1.0" in figures
    failed = Job(
        str(source), f"{tmp_path}/failed.csv", model_folder, max_error_rate=0, metrics_file=tmp_path / "job.prom"
    )
    score(failed)
    assert "bertrand_score_complete 0.0" in (tmp_path / "job.prom").read_text(), "yesterday's success is not today's"


def test_a_job_that_is_refused_does_not_keep_the_figures_of_the_one_before(unfinished, tmp_path):
    """Whether the input, the model, the unfinished job or the output is in its way."""
    figures = tmp_path / "job.prom"
    (tmp_path / "bad.csv").write_text("id\n1\n")
    command, (source, out, _, model, *rate) = unfinished[0], unfinished[1:]
    refused = [
        [source, out, "--model", model, *rate, "--resume", "--prefix", "p_"],
        [source, tmp_path / "none" / "out.csv", "--model", model],
        [source, source, "--model", model],
        [tmp_path / "bad.csv", out, "--model", model],
        [source, out, "--model", tmp_path / "none"],
    ]
    for job in refused:
        figures.write_text("bertrand_score_complete 1.0\n")
        done = run_command(command, *job, "--metrics-file", figures)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "\nbertrand_score_complete 0.0\n" in figures.read_text()
        assert 'bertrand_score_rows{outcome="ok"} 0.0\n' in figures.read_text()
