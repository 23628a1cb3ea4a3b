"""A few rows of every label: as many as asked for, the same ones for a seed, and nothing of them in the rest."""

import json
from collections import Counter

import pytest

from tests.support import run_command, write_csv
from training.copies import fold
from training.data import Row, read_rows
from training.sample import draw

ROWS = [Row(f"text {i}", ("abc"[i % 3] if i < 90 else "rare",)) for i in range(93)]


def test_every_label_has_as_many_rows_as_asked_for_or_all():
    sample = draw(ROWS, 8, seed=0)

    assert sample.counts == {"a": 8, "b": 8, "c": 8, "rare": 3}
    assert sample.short == ("rare",)
    assert Counter(sample.drawn) + Counter(sample.rest) == Counter(ROWS)
    assert sample.drawn == [row for row in ROWS if row in set(sample.drawn)]


def test_the_seed_decides_and_more_rows_hold_the_fewer():
    assert draw(ROWS, 8, seed=1) == draw(ROWS, 8, seed=1)
    assert draw(ROWS, 8, seed=1).drawn != draw(ROWS, 8, seed=2).drawn
    assert set(draw(ROWS, 4, seed=1).drawn) < set(draw(ROWS, 8, seed=1).drawn)


def test_no_copy_of_a_drawn_text_is_drawn_again_or_left_to_measure_on():
    rows = [*ROWS, *(Row(f"Text {i}!", row.labels) for i, row in enumerate(ROWS))]

    sample = draw(rows, 8, seed=0)

    drawn = [fold(row.text) for row in sample.drawn]
    assert len(set(drawn)) == len(drawn) == sample.copies == 27
    assert not set(drawn) & {fold(row.text) for row in sample.rest}
    assert len(sample.rest) == len(rows) - 2 * 27


def test_of_several_labels_a_row_each_is_drawn_often_enough():
    rows = [Row(f"text {i}", ("common", "rare") if i % 10 == 0 else ("common",)) for i in range(100)]
    rows += [Row(f"other {i}", ("other",) if i % 2 else ()) for i in range(40)]

    sample = draw(rows, 6, seed=0)

    assert sample.counts == {"common": 6, "other": 6, "rare": 6}  # the rows of rare are common's too
    assert all(row.labels for row in sample.drawn)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_command_writes_both_parts(tmp_path, ending):
    data = write_csv(tmp_path / "data.csv", [(row.text, row.labels[0]) for row in ROWS])
    out, rest = tmp_path / f"few.{ending}", tmp_path / f"rest.{ending}"

    done = run_command("sample", data, "--rows-per-label", "8", "--seed", "3", "--out", out, "--rest", rest)
    figures = run_command("sample", data, "--rows-per-label", "8", "--seed", "3", "--out", out, "--json")

    expected = draw(ROWS, 8, seed=3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{out}: 27 rows, 3 to 8 of each of 4 labels",
        f"{rest}: the other 66 rows",
        "'rare' has fewer than 8 different texts: all 3 were drawn",
    ]
    assert (read_rows(out), read_rows(rest)) == (expected.drawn, expected.rest)
    assert json.loads(figures.stdout)["label_counts"] == {"a": 8, "b": 8, "c": 8, "rare": 3}


def test_what_cannot_be_drawn_or_written_is_told_and_nothing_is_written(tmp_path):
    data = write_csv(tmp_path / "data.csv", [("one", "a"), ("two", "b")])
    (tmp_path / "link.csv").symlink_to(data)
    bare = write_csv(tmp_path / "bare.csv", [("one", "")])
    (tmp_path / "folder.csv").mkdir()
    (kept := tmp_path / "kept.csv").write_text("old")
    before = data.read_bytes()
    for arguments, told in [
        ((data, "--rows-per-label", "0", "--out", tmp_path / "o.csv"), "--rows-per-label is 0; expected 1 or more"),
        ((data, "--rows-per-label", "1", "--out", tmp_path / "o.csv", "--seed", "-1"), "--seed is -1; expected"),
        ((data, "--rows-per-label", "1", "--out", data), "are not different files"),
        ((data, "--rows-per-label", "1", "--out", tmp_path / "link.csv"), "are not different files"),
        ((data, "--rows-per-label", "1", "--out", tmp_path / "o.csv", "--rest", data), "are not different files"),
        (
            (data, "--rows-per-label", "1", "--out", tmp_path / "o.csv", "--rest", tmp_path / "o.csv"),
            "are not different files",
        ),
        ((data, "--rows-per-label", "1", "--out", tmp_path / "o.xlsx"), "unknown ending '.xlsx'"),
        ((data, "--rows-per-label", "1", "--out", tmp_path / "no" / "o.csv"), "cannot be written"),
        (
            (data, "--rows-per-label", "1", "--out", tmp_path / "no" / "o.csv", "--rest", tmp_path / "r.csv"),
            "there is no folder",
        ),
        (
            (data, "--rows-per-label", "1", "--out", tmp_path / "folder.csv", "--rest", kept),
            "folder.csv: cannot be written (Is a directory)",
        ),
        (
            (data, "--rows-per-label", "1", "--out", tmp_path / "o.csv", "--text-column", "label"),
            "'label' is named as the column of both text and label",
        ),
        ((bare, "--rows-per-label", "1", "--out", tmp_path / "o.csv"), "'label' is empty"),
        ((bare, "--rows-per-label", "1", "--out", tmp_path / "o.csv", "--multi-label"), "no row has a label"),
    ]:
        done = run_command("sample", *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
        assert told in done.stderr
    assert data.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bare.csv",
        "data.csv",
        "folder.csv",
        "kept.csv",
        "link.csv",
    ]
    assert kept.read_text() == "old"
