"""What is planted in a file is found, all of it, and nothing else; what is found can be cleaned away."""

import csv
import json

import pytest

from tests.support import run_command, write_csv
from training import finished, pipeline
from training.checks import check, clean, spellings
from training.copies import fold
from training.data import Row, Table, read_rows
from training.errors import DataError
from training.settings import TrainConfig

WORDS = "order card refund parcel login payment voucher account invoice transfer".split()


def good(count=60):
    """Rows with nothing wrong with them: every text another one, two labels, equally often."""
    pairs = [(f"{a} and {b}", "ab"[(i + j) % 2]) for i, a in enumerate(WORDS) for j, b in enumerate(WORDS)]
    return pairs[:count]


def found(tmp_path, rows, against=None, max_tokens=32):
    table = Table.read(write_csv(tmp_path / "data.csv", rows))
    other = Table.read(write_csv(tmp_path / "test.csv", against)) if against else None
    checked = check(
        table, other, count_tokens=lambda texts: [len(text.split()) + 2 for text in texts], max_tokens=max_tokens
    )
    return {finding.code: finding for finding in checked.findings}


def test_nothing_is_found_in_good_rows(tmp_path):
    assert found(tmp_path, good(), against=[("something else", "a"), ("yet another", "b")]) == {}


@pytest.mark.parametrize(
    ("planted", "code", "count"),
    [
        ([("order and card", "b")], "duplicate", 1),
        ([("Order, and CARD!", "b"), ("order  and card", "b")], "near_duplicate", 2),
        ([("order and card", "a")], "contradiction", 2),
        ([("ORDER and card", "a"), ("order and card.", "b")], "contradiction", 3),
        ([(f"new {i}", "A") for i in range(5)], "label_variant", 2),
        ([(f"new {i}", "rare") for i in range(4)], "label_rare", 1),
        ([("wide " * 40, "a")], "too_long", 1),
        ([("the cafÃ© is closed", "a"), ("it\ufffds late", "b")], "encoding", 2),
        (
            [("He said â€œHelloâ€\x9d to me", "a"), ("cafÃ© is naïve", "b"), ("it was a 🙂 cafÃ©", "a")],
            "encoding",
            3,
        ),
        ([("l'Å“uvre", "a"), ("voilÃ\xa0 tout", "b"), ("Â«NonÂ»", "b"), ("È™i", "a")], "encoding", 4),
        ([(f"new {i}", "a|b") for i in range(6)], "label_list", 6),
        ([(f"new {i}", '"a, b"') for i in range(6)], "label_list", 6),
        ([(f"new {i}", "\"['a', 'c']\"") for i in range(6)], "label_list", 6),
        ([(f"new {i}", "a\u200b") for i in range(6)], "label_variant", 2),
        ([("", "a"), ("no label", "")], "bad_row", 2),
        ([("it does n't", "a"), ("-LRB- so there", "b"), ("a `` b ''", "a")], "treebank", 3),
        ([("fish &amp; chips", "a"), ("so<br />what", "b"), ("it&#39;s late", "b"), ("AT&T; a<b>c", "a")], "html", 4),
        ([(f"new {i}", "nan") for i in range(5)] + [(f"newer {i}", "None") for i in range(5)], "label_missing", 2),
        ([(f"more {i}", "a") for i in range(600)], "imbalance", 1),
        ([(f"row {i}", f"id-{i}") for i in range(70)], "label_id", 70),
    ],
)
def test_what_is_planted_is_found(tmp_path, planted, code, count):
    findings = found(tmp_path, good() + planted)

    assert findings[code].count == count
    allowed = {code} | ({"label_rare", "imbalance"} if code == "label_id" else set())
    assert findings.keys() <= allowed
    assert code == "imbalance" or findings[code].examples


@pytest.mark.parametrize(
    "text",
    [
        "naïve café",
        "Größe, Maß, Öl",
        "日本語",
        "«Привет» — да…",
        "price: 5 €, 5 £",
        "👍🏽 good",
        "½ cup",
        "“quoted” – text’s",
        "»Spaß«, „Gruß“ und „MENÜ“",
        "viel Spaß…",
        "“RÉSUMÉ” at the CAFÉ™",
        "« j’ai été…»",
        "É… AMANHÃ…",
        "CAFÉ\xa0!",
    ],
)
def test_what_was_decoded_well_has_no_signs_of_a_wrong_decoding(tmp_path, text):
    assert "encoding" not in found(tmp_path, [*good(), (text, "a")])


def test_a_label_that_was_decoded_wrongly_is_found_too(tmp_path):
    findings = found(tmp_path, [*good(), *((f"new {i}", "CafÃ©") for i in range(5))])
    assert findings["encoding"].examples == ("label 'CafÃ©'",)
    shown = found(tmp_path, [*good(), ("the cafÃ© is closed", "a")])["encoding"].examples
    assert shown == ("line 62: Ã© in 'the cafÃ© is closed'",)


def test_labels_that_look_the_same_are_shown_by_code_points(tmp_path):
    labels = ["gel\xf6st", "gelo\u0308st"]
    findings = found(tmp_path, [*good(), *((f"new {i}", labels[i % 2]) for i in range(10))])
    (shown,) = findings["label_variant"].examples
    assert "'gel\\xf6st' (5 rows)" in shown
    assert "'gelo\\u0308st' (5 rows)" in shown


def test_rows_that_a_quotation_mark_swallowed_are_found(tmp_path):
    path = tmp_path / "data.tsv"
    rows = [f"{text}\t{label}" for text, label in good(40)]
    rows[5], rows[20] = f'"{rows[5]}', rows[20].replace("\t", '"\t')
    path.write_text("\n".join(["text\tlabel", *rows]))

    table = Table.read(path)

    checked = check(table, count_tokens=lambda texts: [len(text.split()) + 2 for text in texts], max_tokens=999)
    assert len(table.rows) == 25
    assert [(finding.code, finding.count) for finding in checked.findings if finding.level == "warning"] == [
        ("swallowed", 1)
    ]


def test_a_quotation_mark_in_any_column_is_found(tmp_path):
    path = tmp_path / "data.tsv"
    rows = [f"{label}\tnote {i}\t{text}" for i, (text, label) in enumerate(good(40))]
    rows[5], rows[6] = rows[5].replace("note", '"note'), rows[6].replace("note 6", 'note 6"')
    path.write_text("\n".join(["label\tnote\ttext", *rows]))

    checked = check(Table.read(path), count_tokens=lambda texts: [3 for _ in texts], max_tokens=99)

    (finding,) = [finding for finding in checked.findings if finding.level == "warning"]
    assert (finding.code, finding.count) == ("swallowed", 1)
    assert finding.examples[0].startswith("line 7: ")


def test_texts_of_several_labels_that_none_can_be_spared_of_are_an_error(tmp_path, tiny_base):
    data = write_csv(tmp_path / "data.csv", [("x one", "a|b"), ("y two", "b|c")])
    arguments = (data, "--multi-label", "--base", tiny_base)

    checked = run_command("check-data", *arguments)
    refused = run_command("train", *arguments, "--out", tmp_path / "out")

    assert checked.returncode == 1
    assert "training needs a --dev" in checked.stdout
    assert refused.returncode == 2
    assert "name a --dev" in refused.stderr


def test_what_training_refuses_is_an_error_here(tmp_path, tiny_base):
    data = write_csv(tmp_path / "data.csv", good())
    test = write_csv(tmp_path / "test.csv", [("", "a"), ("new", "b")])
    alone = write_csv(tmp_path / "alone.csv", [("one", "a"), ("two", "b"), ("Two!", "b")])
    for arguments, told in [((data, "--against", test), f"1 row of {test}"), ((alone,), "training needs a --dev")]:
        done = run_command("check-data", *arguments, "--base", tiny_base)
        assert done.returncode == 1
        assert told in done.stdout
    needs_dev = run_command(
        "train", alone, "--dev", alone, "--base", tiny_base, "--epochs", "1", "--out", tmp_path / "m"
    )
    assert needs_dev.returncode == 0, needs_dev.stderr


def test_what_the_test_rows_share_with_the_development_rows_is_found(tmp_path):
    """The epoch, the temperature and the thresholds were chosen on them."""
    table = Table.read(write_csv(tmp_path / "data.csv", good()))
    dev, test = (
        Table.read(write_csv(tmp_path / name, rows))
        for name, rows in (("dev.csv", [("new one", "a"), ("both", "b")]), ("test.csv", [("Both.", "b"), ("x", "a")]))
    )

    checked = check(table, test, dev=dev, count_tokens=lambda texts: [3 for _ in texts], max_tokens=32)

    (leakage,) = [finding for finding in checked.findings if finding.code == "leakage"]
    assert leakage.count == 1
    assert f"test.csv whose text, but for case and punctuation, {dev.path} has too" in leakage.message


def test_a_row_of_few_or_few_of_many_make_no_treebank(tmp_path):
    rows = [(f"{text} {i}", label) for i in range(7) for text, label in good()]
    split = [("it does n't", "a"), ("-LRB- so there", "b"), ("a `` b ''", "a"), ("wo n't", "b")]

    assert "treebank" not in found(tmp_path, [*rows, *split])
    assert "treebank" not in found(tmp_path, [*good(), *split[:2]])


def test_many_labels_of_few_rows_are_no_ids(tmp_path):
    """Nothing can be said against two rows of each of many labels but that they are few."""
    pairs = [(f"text {i}", f"label {i // 2}") for i in range(153)]  # one of 77 labels has a single row
    tags = [(f"text {i}", f"tag {i % 28}|tag {i * 3 % 28}") for i in range(50)]

    for rows, multi_label in [(pairs, False), (tags, True)]:
        table = Table.read(write_csv(tmp_path / "data.csv", rows), multi_label=multi_label)
        checked = check(table, count_tokens=lambda texts: [len(text.split()) + 2 for text in texts], max_tokens=32)
        assert not checked.failed, checked.findings


def test_what_the_test_rows_share_with_the_training_rows_is_found(tmp_path):
    """A model that has seen the answers is not as good as it looks."""
    findings = found(tmp_path, good(), against=[("Order and card!", "b"), ("quite new", "a"), ("card and order", "c")])

    assert (findings["leakage"].count, findings["label_unknown"].count) == (2, 1)
    assert "line 2, as line 3 of" in findings["leakage"].examples[0]
    assert findings["leakage"].level == "warning"
    assert findings["label_unknown"].level == "error"


def test_what_the_development_rows_share_with_the_training_rows_is_found(tmp_path):
    """An epoch that knows the answers is chosen for its memory, and the temperature believes it."""
    table = Table.read(write_csv(tmp_path / "data.csv", good()))
    dev = Table.read(write_csv(tmp_path / "dev.csv", [("Order and card!", "b"), ("quite new", "a")]))

    checked = check(table, dev=dev, count_tokens=lambda texts: [len(text.split()) + 2 for text in texts], max_tokens=32)

    (leakage,) = checked.findings
    assert (leakage.code, leakage.level, leakage.count) == ("leakage", "warning", 1)
    assert "dev.csv" in leakage.message
    assert "line 2, as line 3 of" in leakage.examples[0]


def test_training_tells_of_development_rows_that_it_learns_from(tmp_path, tiny_base):
    data = write_csv(tmp_path / "data.csv", good())
    dev = write_csv(tmp_path / "dev.csv", good(4))

    done = run_command("train", data, "--dev", dev, "--base", tiny_base, "--epochs", "1", "--out", tmp_path / "model")

    assert f"warning: 4 rows of {dev}" in done.stderr


def test_labels_that_only_the_other_file_spells_differently_are_variants(tmp_path):
    findings = found(tmp_path, good(), against=[("quite new", "A"), ("newer still", "b")])

    assert findings["label_variant"].examples == ("'a' (30 rows) and 'A' (1 row)",)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("card_arrival", "Card Arrival", True),
        ("card-arrival", "card_arrival", True),
        ("R&D", "R&amp;D", True),
        ("A", "A-", False),
        ("1-0", "10", False),
        ("-1", "1", False),
        ("C", "C++", False),
    ],
)
def test_only_what_is_the_same_word_is_a_variant_of_a_label(tmp_path, one, other, same):
    table = Table.read(write_csv(tmp_path / "data.csv", [("x", one), ("y", other), ("z", other)]))

    assert spellings(table) == ({one: other, other: other} if same else {})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Where's my card?", "wheres my card", False),
        ("my card...", "MY  CARD", True),
        ("ﬁne", "fine", True),
        (":)", ":(", False),
        ("good :)", "good :(", False),
        ("good 🙂", "good 🙁", False),
        ("कि", "का", False),
        ("C", "C++", False),
        ("really?!", "Really...", True),
        ("Where is my card?", '"Where is my card?"', True),
        ("Where is my card?", "(where is my card)", True),
        ('Who wrote "Hamlet"?', "Who wrote Hamlet?", True),
        ("the app (it crashes): help", "the app, it crashes; help", True),
        ("good :).", "good :)", True),
        ("good:-)", "good", False),
        ("(: good", "): good", False),
        ("-_- again", "again", False),
        ("me too :,)", "me too!", False),
        ("I don&#39;t know", "i don't know", True),
        ("5 &lt; 6", "5 &gt; 6", False),
        ("see http://a.b/c", "see http a b c", True),
        ("日本語。", "日本語", True),
        ("I paid 10", "I paid 100", False),
        ("what is C#", "what is C", False),
        ("5 % more", "5 more", False),
        ("5\N{NARROW NO-BREAK SPACE}% more", "5% more", True),
        ("5% off", "5 off", False),
        ("-5 today", "5 today", False),
        ("R&D", "R D", False),
        ("me@home", "me home", False),
        ("#wow", "Wow", True),
        ("tea & cake", "tea, cake", True),
        ("re\u200bfund the ta\u00adble", "refund the table", True),
        ("i love it \u2764", "I love it \u2764\ufe0f", True),
        ("one\x00two", "onetwo", False),
    ],
)
def test_copies_differ_in_case_and_punctuation_alone(one, other, same):
    assert (fold(one) == fold(other)) == same


def test_a_file_that_no_row_can_be_spared_of_is_told(tmp_path):
    """One text has both labels, and the only rows of the one."""
    torn = [("one text", "a")] + [("one text", "b")] * 31 + [("another text", "a")] * 16 + [("a third one", "a")] * 16

    assert found(tmp_path, torn)["text_alone"].level == "error"
    with pytest.raises(DataError, match="no row can be spared to choose the epoch by"):
        pipeline.train(TrainConfig(), tmp_path / "data.csv", out=tmp_path / "model")


def test_clean_keeps_what_is_worth_learning_from(tmp_path):
    rows = [*good(10), ("order and card", "b"), ("My text", "B"), ("my text!", "b"), ("torn", "a"), ("torn", "b")]
    rows += [("", "a"), ("in the test", "a")]
    table = Table.read(write_csv(tmp_path / "data.csv", rows))
    against = Table.read(write_csv(tmp_path / "test.csv", [("In the test?", "a"), ("order and refund", "a")]))

    kept = clean(table, against)

    expected = [Row(text, (label,)) for text, label in good(10) if text != "order and refund"]
    assert kept == [*expected, Row("My text", ("b",))]
    assert clean(Table(table.path, [("line 1", row) for row in kept], []), against) == kept


def test_the_command_reports_cleans_and_says_whether_training_would_refuse(tmp_path):
    data = write_csv(tmp_path / "data.csv", [*good(), ("order and card", "b"), ("", "a")])

    done = run_command("check-data", data, "--clean", tmp_path / "clean.jsonl")

    assert done.returncode == 1
    assert "61 rows, 2 labels" in done.stdout
    assert "line 63: 'text' is empty" in done.stdout
    assert "[duplicate]" in done.stdout
    assert [row.text for row in read_rows(tmp_path / "clean.jsonl")] == [text for text, _ in good()]

    done = run_command("check-data", tmp_path / "clean.jsonl", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["rows"], answer["findings"]) == (0, 60, [])
    assert answer["label_counts"] == {"a": 30, "b": 30}
    assert answer["tokens_of_a_text"]["least"] == 5  # two words and "and", between two special tokens


def test_cleaning_loses_nothing_where_it_cannot_write(tmp_path):
    data = write_csv(tmp_path / "data.csv", good())

    assert run_command("check-data", data, "--clean", tmp_path / "clean.xlsx").returncode == 2
    missing = run_command("check-data", data, "--clean", tmp_path / "nowhere" / "clean.csv")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    test = write_csv(tmp_path / "test.csv", good(4))
    over = run_command("check-data", data, "--against", test, "--clean", test)
    assert (over.returncode, "not different files" in over.stderr) == (2, True)
    assert test.read_bytes() == write_csv(tmp_path / "as-it-was.csv", good(4)).read_bytes()
    wide = tmp_path / "wide.csv"
    for content, lost in [
        ("id,text,label\n1,hi,a\n2,ho,b\n", "the column 'id'"),
        ("text,label\nhi,a\n,b\nho,b\n", "1 row without a text or a label"),
    ]:
        wide.write_text(content)
        refused = run_command("check-data", wide, "--clean", wide)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert lost in refused.stderr
        assert wide.read_text() == content
    assert run_command("check-data", data, "--clean", data).returncode == 0  # in place
    with data.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1:] == [list(row) for row in good()]


def test_multi_label_rows_contradict_each_other_by_their_whole_sets(tmp_path):
    rows = [("one", "a|b"), ("one", "b|a"), ("two", "a"), ("two", "a|b"), ("three", "b")]
    table = Table.read(write_csv(tmp_path / "data.csv", rows), multi_label=True)

    checked = check(table, count_tokens=lambda texts: [2 + len(text) for text in texts], max_tokens=8)

    counts = {finding.code: finding.count for finding in checked.findings}
    assert (counts["contradiction"], counts["duplicate"]) == (2, 1)


DAMAGED = {
    "binary.csv": bytes(range(256)) * 20,
    "empty.csv": b"",
    "no-header.csv": b"where is it,a\nhere it is,b\n",
    "delimiter.csv": b"text;label\nwhere is it;a\nhere it is;b\n",
    "one-column.csv": b"text\nwhere is it\n",
    "one-label.csv": b"text,label\n" + b"".join(b"where is %d,a\n" % i for i in range(30)),
    "nul.csv": b"text,label\nwhere\x00is,a\n\x00\x00,b\n",
    "encodings.csv": "text,label\ncafé,a\n".encode() + "café,b\n".encode("latin-1"),
    "labels.csv": b"text,label\n" + b"".join(b"row %d,label %d\n" % (i, i) for i in range(10_000)),
    "long.csv": b"text,label\n" + b"x" * 100_000 + b",a\n",
}


@pytest.mark.parametrize("text", ["\ufffd", "\ufe0f"])
@pytest.mark.parametrize("option", [None, "--dev", "--test"])
def test_a_text_of_which_the_tokenizer_leaves_nothing_is_told_before_training(tmp_path, tiny_base, text, option):
    """Found by the exported model, it would end the run after all the time was spent, and without a place."""
    planted = write_csv(tmp_path / "planted.csv", [*good(), (text, "a")])
    data = write_csv(tmp_path / "data.csv", [(f"it is {t}", label) for t, label in good()]) if option else planted
    others = [option, planted] if option else []

    done = run_command("train", data, *others, "--base", tiny_base, "--out", tmp_path / "model")

    assert done.returncode == 2
    assert "leaves nothing" in done.stderr
    assert f"{planted}, line 62" in done.stderr
    assert "epoch 1" not in done.stderr


def test_what_the_tokenizer_leaves_nothing_of_is_reported_and_cleaned_away(tmp_path, tiny_base):
    data = write_csv(tmp_path / "data.csv", [*good(), ("\ufe0f", "a")])

    done = run_command("check-data", data, "--base", tiny_base, "--clean", tmp_path / "clean.csv")

    assert done.returncode == 1
    assert f"{data}, line 62" in done.stdout
    assert "[text_unread]" in done.stdout
    assert [row.text for row in read_rows(tmp_path / "clean.csv")] == [text for text, _ in good()]


def test_measuring_names_the_row_that_a_model_cannot_read(tmp_path, model_folder):
    data = write_csv(tmp_path / "data.csv", [("refund please", "refund"), ("\ufffd", "login")])

    for model in (model_folder, model_folder / "checkpoint"):
        with pytest.raises(DataError, match=r"data\.csv, line 3: .* leaves nothing of"):
            finished.evaluate(model, data)
        with pytest.raises(DataError, match=r"data\.csv, line 3: .* leaves nothing of"):
            finished.compare(model, model_folder, data)


@pytest.mark.parametrize("name", DAMAGED)
def test_training_tells_of_a_damaged_file_in_one_line(tmp_path, tiny_base, name):
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])

    done = run_command("train", path, "--base", tiny_base, "--out", tmp_path / "model")

    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("bertrand: ")]
    assert len(told) == 1, done.stderr
    assert name in told[0]
    assert not (tmp_path / "model").exists()
