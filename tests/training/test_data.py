"""Files of labelled sentences: what is read, and what each broken one is told."""

import json
import random
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest

from tests.support import write_csv
from training.copies import fold
from training.crossed import Folds
from training.data import Row, Table, read_placed, read_rows, split, write_rows
from training.errors import DataError

ROWS = [
    ("plain", "a"),
    ('she said "no", twice', "b"),
    ("two\nlines", "a"),
    ("naïve 日本語 🙂", "b"),
    ("a line\u2028separator", "a"),
]


def write(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        table = pyarrow.table(
            {"text": [t for t, _ in ROWS], "label": [label for _, label in ROWS], "id": range(len(ROWS))}
        )
        pyarrow.parquet.write_table(table, path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"label": label, "text": t}) + "\n" for t, label in ROWS))
    elif kind == "tsv":
        lines = ["label\ttext", *('{}\t"{}"'.format(label, t.replace('"', '""')) for t, label in ROWS)]
        path.write_text("\ufeff" + "\r\n".join(lines))
    else:
        write_csv(path, ROWS)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, kind):
    """Quotes, line breaks in cells, a byte order mark, other column orders: the sentences are what was written."""
    assert read_rows(write(tmp_path, kind)) == [Row(text, (label,)) for text, label in ROWS]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.csv", b"sentence,label\nhi,a\n", ["no column 'text'", "'sentence'", "--text-column"]),
        ("x.csv", b"text,text,label\nhi,ho,a\n", ["more than one column 'text'"]),
        ("x.csv", b"text,label\nhi,a\n  ,b\n", ["line 3", "'text' is empty", "expected a sentence"]),
        ("x.csv", b"text,label\nhi,a\nho,\n", ["line 3", "'label' is empty", "expected one label"]),
        ("x.csv", b'text,label\n"two\nlines",a\n,b\n', ["line 4", "'text' is empty"]),
        ("x.csv", b"text,label\nhi,a\nho,ha,b\n", ["line 3", "3 cells, expected 2"]),
        ("x.csv", b"text,label\nhi,a\ncaf\xe9,b\n", ["line 3", "0xE9", "UTF-8", "iconv"]),
        ("x.csv", b'text,label\n"hi,a\n', ["line 2", "RFC 4180"]),
        ("x.csv", b"text,label\nhi,a\n\xe2\x80\x8b\xef\xbb\xbf,b\n", ["line 3", "no visible character"]),
        ("x.csv", b"text,label\nhi,\xe2\x80\x8b\n", ["line 2", "'label' is empty or has no visible character"]),
        ("x.csv", b"text;label\nhi;a\n", ["one cell, 'text;label'", "divided by ';'", "expected ','"]),
        ("x.tsv", b"text,label\nhi,a\n", ["divided by ','", "expected '\\t'"]),
        (
            "x.csv",
            b"Text,label\nhi,a\n",
            ["no column 'text', found 'Text'", "name yours, as 'Text', with --text-column"],
        ),
        ("x.csv", "text,label\nhi,a\n".encode("utf-16"), ["UTF-16", "iconv -f UTF-16"]),
        ("x.csv", "text,label\nhi,a\n".encode("utf-16-be"), ["begins as UTF-16BE does", "iconv -f UTF-16BE"]),
        ("x.csv", "text,label\nhi,a\n".encode("utf-32"), ["begins as UTF-32 does", "iconv -f UTF-32"]),
        ("x.csv", "text,label\nhi,a\n".encode("utf-32-le"), ["iconv -f UTF-32LE"]),
        ("x.csv", b"text;label;price, EUR\nhi;a;3,5\n", ["divided by ';'", "expected ','"]),
        ("x.csv", b"sep=;\ntext;label\nhi;a\n", ["divided by ';'", "expected ','"]),
        (
            "x.jsonl",
            b'{"text": "hi", "label": true}\n',
            ["line 1", "bool 'True'", "write it as a text"],
        ),
        ("x.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", ["line 1", "not valid JSON"]),
        ("x.csv", b"text,label\n", ["no rows"]),
        ("x.csv", b"", ["no rows"]),
        ("x.jsonl", b'{"text": "hi", "label": "a"}\n{"text": "ho"\n', ["line 2", "not valid JSON"]),
        ("x.jsonl", b'{"text": "hi", "label": null}\n', ["line 1", "'label' is missing"]),
        ("x.jsonl", b'{"text": 5, "label": "a"}\n', ["line 1", "int '5'"]),
        (
            "x.jsonl",
            b'{"text": "hello \\ud83d", "label": "a"}\n',
            ["line 1", "character 7 of 'text'", "surrogate pair (U+D83D)", "expected valid Unicode"],
        ),
        ("x.jsonl", b'{"text": "hello", "label": "\\ude00"}\n', ["line 1", "character 1 of 'label'", "U+DE00"]),
        ("x.jsonl", b'{"sentence": "hi", "label": "a"}\n', ["line 1", "no column 'text'", "--text-column"]),
        ("x.jsonl", b'{"text": "hi", "label": "a"}\n{"text": "ho"}\n', ["line 2", "'label' is missing"]),
        ("x.jsonl", b'{"text": "hi", "label": [1, 2]}\n', ["line 1", "expected one label", "--multi-label"]),
        ("x.jsonl", b"[1]\n", ["line 1", "one object a line"]),
        ("x.parquet", b"PAR2", ["not a Parquet file"]),
        ("x.xlsx", b"", ["unknown ending '.xlsx'", ".csv"]),
    ],
)
def test_a_broken_file_is_told_where_and_what_was_expected(tmp_path, name, content, told):
    """A message without file, line and expectation leaves the user to search 100,000 rows."""
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError) as error:
        read_rows(path)

    for part in (str(path), *told):
        assert part in str(error.value)


def test_a_text_of_a_parquet_file_that_is_no_utf_8_is_told_with_its_row(tmp_path):
    texts = pyarrow.array([b"fine", b"caf\xe9"]).view(pyarrow.utf8())
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": ["a", "b"]}), tmp_path / "x.parquet")

    with pytest.raises(DataError, match=r"x\.parquet, row 2: byte 0xE9 is not UTF-8"):
        read_rows(tmp_path / "x.parquet")


def test_the_line_in_which_excel_names_the_delimiter_is_no_header(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("sep=,\ntext,label\nhi,a\n")

    assert list(read_placed(path)) == [(f"{path}, line 3", Row("hi", ("a",)))]


def test_blank_lines_anywhere_are_no_rows(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\n  \ntext,label\n\nhi,a\n   \nho,b\n \n")

    assert read_rows(path) == [Row("hi", ("a",)), Row("ho", ("b",))]


def test_labels_that_hold_what_joins_them_are_refused(tmp_path):
    """Written again they would be two."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": ["x", "y|z"]}\n')

    with pytest.raises(DataError, match=r"line 1: element 2 of 'label' is 'y\|z'; expected labels without \|"):
        read_rows(path, multi_label=True)


def test_several_labels_may_be_a_json_list_in_a_cell(tmp_path):
    rows = [("a", '"[""x"", ""y, z""]"'), ("b", "[3]"), ("c", "[]"), ("d", "[x]|y")]
    path = write_csv(tmp_path / "x.csv", rows)

    assert [row.labels for row in read_rows(path, multi_label=True)] == [("x", "y, z"), ("3",), (), ("[x]", "y")]


def test_a_file_that_is_replaced_stays_as_private_as_it_was(tmp_path):
    path = write_csv(tmp_path / "x.csv", [("a", "b")])
    path.chmod(0o600)
    write_rows({path: [Row("c", ("d",))]})
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read"):
        read_rows(tmp_path / "nowhere.csv")


def test_several_labels_a_row_are_told_apart_by_a_bar_or_a_list(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": "x|y|x"}\n{"text": "b", "label": ["y"]}\n{"text": "c", "label": ""}\n')

    assert [row.labels for row in read_rows(path, multi_label=True)] == [("x", "y"), ("y",), ()]


def test_labels_may_be_numbers_alone_and_in_a_list(tmp_path):
    """Data sets of the hub number their labels: GoEmotions has lists such as [27]."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": [27]}\n{"text": "b", "label": [3, "27"]}\n{"text": "c", "label": 3}\n')

    assert [row.labels for row in read_rows(path, multi_label=True)] == [("27",), ("3", "27"), ("3",)]


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ('["a", null]', "element 2 of 'label' is missing"),
        ("[1.5]", "element 1 of 'label' is float '1.5'"),
        ("[true]", "element 1 of 'label' is bool 'True'"),
        ('{"a": 1}', "'label' is dict"),
    ],
)
def test_what_is_no_label_in_a_list_is_named(tmp_path, label, told):
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"text": "a", "label": {label}}}\n')

    with pytest.raises(DataError) as error:
        read_rows(path, multi_label=True)

    assert told in str(error.value)


def test_a_record_without_a_key_is_one_bad_row(tmp_path):
    """One line of a hundred thousand must not hide what else is in the file."""
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"label": "y"}\n{"text": "b"}\n{"text": "c", "label": "y"}\n')

    table = Table.read(path)

    assert [row.text for _, row in table.rows] == ["a", "c"]
    assert [str(flaw).partition(": ")[2] for flaw in table.flaws] == [
        "'text' is missing; expected a sentence",
        "'label' is missing; expected one label",
    ]
    assert [row.text for row in (row for _, row in read_placed(path, label_column=None)) if isinstance(row, Row)] == [
        "a",
        "b",
        "c",
    ]


def test_half_of_a_surrogate_pair_in_one_of_several_labels_is_refused_too(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": ["x", "y\\ud83d"]}\n')

    with pytest.raises(DataError, match=r"line 1: character 2 of 'label' is half of a surrogate pair"):
        read_rows(path, multi_label=True)


def test_the_split_keeps_every_label_and_every_copy_of_a_text_on_one_side():
    """A copy on both sides would let the development score reward memory; a label on one side measures nothing."""
    rows = [Row(f"text {i % 40}", ("common" if i % 40 < 37 else "rare",)) for i in range(80)]

    train, dev = split(rows, share=0.1, seed=3)

    assert Counter(train) + Counter(dev) == Counter(rows)
    assert not {row.text for row in train} & {row.text for row in dev}
    assert {row.labels for row in dev} == {row.labels for row in train} == {("common",), ("rare",)}
    assert split(rows, share=0.1, seed=3) == (train, dev)
    assert split(rows, share=0.1, seed=4) != (train, dev)


@pytest.mark.parametrize("seed", range(10))
def test_where_rows_have_several_labels_each_has_its_share(seed):
    """Sets of labels are nearly all different; in whatever order they are written."""
    generator = random.Random(seed)
    names = [f"label {i}" for i in range(20)]
    rows = [Row(f"text {i}", tuple(generator.sample(names, generator.choice([0, 1, 4, 4])))) for i in range(400)]

    train, dev = split(rows, share=0.1, seed=seed)

    assert Counter(train) + Counter(dev) == Counter(rows)
    assert len(dev) == pytest.approx(40, abs=10)
    all_of, kept = (Counter(label for row in part for label in row.labels) for part in (rows, dev))
    for name in names:
        assert kept[name] == pytest.approx(0.1 * all_of[name], abs=2)
        assert kept[name]
    assert sum(not row.labels for row in dev) == pytest.approx(0.1 * sum(not row.labels for row in rows), abs=2)
    written = [Row(row.text, row.labels[::-1]) for row in rows]
    assert [row.text for row in split(written, share=0.1, seed=seed)[1]] == [row.text for row in dev]


@pytest.mark.parametrize("seed", range(20))
def test_near_copies_of_a_text_stay_on_one_side(seed):
    """A model knows a text that it has learnt by its capital or its full stop too."""
    rows = [Row(text, (str(i % 2),)) for i in range(20) for text in (f"text {i}", f"Text {i}.", f"TEXT  {i}!")]

    train, dev = split(rows, share=0.2, seed=seed)

    assert dev
    assert Counter(train) + Counter(dev) == Counter(rows)
    assert not {fold(row.text) for row in train} & {fold(row.text) for row in dev}


def test_rows_without_near_copies_are_divided_as_ever():
    """Figures of earlier models stay comparable."""
    rows = [Row(f"text {i % 40}", ("ab"[i % 40 % 3 == 0],)) for i in range(60)]

    _, dev = split(rows, share=0.1, seed=0)

    assert sorted({row.text for row in dev}) == ["text 0", "text 1", "text 22", "text 35"]


def test_near_copies_are_in_one_fold_of_few_examples():
    rows = [Row(text, (str(i % 2),)) for i in range(12) for text in (f"text {i}", f"Text {i}.")]

    for learnt, held_out in Folds(rows, seed=0).parts:
        assert not {fold(row.text) for row in learnt} & {fold(row.text) for row in held_out}


def test_a_text_that_is_learnt_by_another_label_is_not_asked_about():
    rows = [Row(f"text {i}", ("ab"[i % 2],)) for i in range(12)] + [Row("text 0!", ("alone",))]

    parts = Folds(rows, seed=0).parts

    assert parts
    for learnt, held_out in parts:
        assert not {fold(row.text) for row in learnt} & {fold(row.text) for row in held_out}
        assert {row.labels for row in learnt} == {("a",), ("b",), ("alone",)}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("share", [0.1, 0.8])
def test_no_label_is_in_the_development_set_alone(seed, share):
    """Copies of a text that contradict each other could take the only row of a label along."""
    rows = [Row(f"text {i}", ("a",)) for i in range(20)] + [Row("same", ("a",)), Row("same", ("c",))]
    rows += [Row("one", ("b",)), Row("two", ("b",))]

    train, dev = split(rows, share=share, seed=seed)

    assert {row.labels for row in dev} <= {row.labels for row in train} == {("a",), ("b",), ("c",)}


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
@pytest.mark.parametrize(
    ("multi_label", "labels"), [(True, [("[0]",), ("a", "b"), ("[x",), ("[1]", "a"), ()]), (False, [("[0]",)])]
)
def test_labels_that_look_like_a_list_are_read_back_too(tmp_path, name, multi_label, labels):
    rows = [Row(f"text {i}", some) for i, some in enumerate(labels)]

    write_rows({tmp_path / name: rows}, multi_label=multi_label)

    assert read_rows(tmp_path / name, multi_label=multi_label) == rows


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_what_is_written_is_read_back(tmp_path, name):
    """A carriage return alone ends a line for readers of CSV, unless it is quoted."""
    rows = [Row(text, ("a",)) for text in ["one\rtwo", "one\ntwo", "one\r\ntwo", 'say "no", twice', "plain", "end\r"]]

    write_rows({tmp_path / name: rows})

    assert read_rows(tmp_path / name) == rows
    if name == "x.csv":
        assert b"\nplain,a\n" in (tmp_path / name).read_bytes()


def test_a_cell_may_be_long(tmp_path):
    path = write_csv(tmp_path / "x.csv", [("word " * 40_000, "a")])

    assert len(read_rows(path)[0].text) == 200_000
