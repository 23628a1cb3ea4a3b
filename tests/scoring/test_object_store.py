"""Jobs from and to an object store: a real server of S3's protocol on the loopback."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from scoring.job import Job, score
from scoring.parts import PART_ROWS
from tests.scoring.tables import many
from tests.support import run_command


@pytest.mark.parametrize("out", ["out.parquet", "out.csv.gz", "out/"])
def test_what_is_read_and_written_there_is_what_a_disk_holds(store, keys, tmp_path, model_folder, out):
    source = many(tmp_path / "in.csv", PART_ROWS["none"] + 10)
    store.put_file(str(source), "jobs/in/day.csv")
    score(Job(str(source), f"{tmp_path}/{out}", model_folder))
    if out.endswith("/"):  # as consoles make a folder, with an earlier job's part in it
        store.pipe_file("jobs/out/", b"")
        store.pipe_file("jobs/.out.scoring/", b"")
        store.pipe_file("jobs/out/part-000007.parquet", b"old")
    done = run_command("score", "s3://jobs/in/*.csv", f"s3://jobs/{out}", "--model", model_folder, **keys)

    assert done.returncode == 0, done.stderr
    found = {name.removeprefix("jobs/") for name in store.find("jobs") if not name.startswith("jobs/in/")} - {"out/"}
    assert not [name for name in found if "scoring" in name], found
    names = {f"out/{path.name}" for path in (tmp_path / out).iterdir()} if out.endswith("/") else {out}
    assert found == names, "the parts that a job keeps are gone when it ends"
    for name in names:
        assert store.cat_file(f"jobs/{name}") == (tmp_path / name).read_bytes()
        store.rm(f"jobs/{name}")


def test_a_job_is_resumed_there(store, keys, tmp_path, model_folder):
    rows = PART_ROWS["none"] + 10
    lines = "".join(f"{i},\n" for i in range(rows))
    store.pipe_file("jobs/in.csv", f"id,text\n{lines}".encode())
    job = ["score", "s3://jobs/in.csv", "s3://jobs/out.parquet", "--model", model_folder, "--max-error-rate"]
    ended = run_command(*job, "0.5", **keys)
    assert ended.returncode == 1, ended.stderr
    assert store.exists("jobs/.out.parquet.scoring/job.json")
    assert not store.exists("jobs/out.parquet")

    done = run_command(*job, "1", "--resume", "--json", **keys)
    assert done.returncode == 0, done.stderr
    assert f'"resumed_rows": {PART_ROWS["none"]}' in done.stdout
    store.get_file("jobs/out.parquet", str(tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").column("id").to_pylist() == [str(i) for i in range(rows)]
    store.rm(store.find("jobs"))


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("s3://nowhere/in.csv", "s3://jobs/out.csv"),
        ("in.csv", "s3://nowhere/out.csv"),
        ("s3://jobs/no.csv", "out.csv"),
        ("in.csv", "s3://jobs/"),
    ],
)
def test_what_is_not_there_is_one_line(store, keys, tmp_path, model_folder, source, out):
    many(tmp_path / "in.csv", 10)
    source, out = (name if "://" in name else tmp_path / name for name in (source, out))
    done = run_command("score", source, out, "--model", model_folder, **keys)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "s3://" in done.stderr
    assert not store.find("jobs")
