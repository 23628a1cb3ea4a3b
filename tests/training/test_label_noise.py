"""Wrong labels that are planted are found and come first; right ones are left in peace."""

import json
import random
import subprocess
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest

from tests.support import ROOT, run_command, write_csv
from training.checks import check, check_labels
from training.data import Row, Table
from training.folds import deal
from training.probe import FOLDS
from training.settings import DEFAULT_BASE
from training.vectors import layered_vectors

SUBJECTS = {
    "refund": ["money", "refund", "invoice", "charged", "card"],
    "login": ["password", "login", "account", "page", "app"],
    "parcel": ["parcel", "late", "box", "order", "when"],
}
AROUND = "the my is not please i we it and great".split()


def sentences_of(count, seed=0):
    """Sentences of four words of their label and one of no label, no two the same."""
    pick = random.Random(seed)
    texts = {}
    while len(texts) < count * len(SUBJECTS):
        for label, words in SUBJECTS.items():
            chosen = pick.sample(words, 4) + pick.sample(AROUND, 1)
            texts[" ".join(pick.sample(chosen, 5))] = label
    return list(texts.items())


def planted(rows, count, seed=0):
    """Give some rows, spread over the file, the label of another row."""
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    names = list(SUBJECTS)
    wrong = [
        (text, names[(names.index(label) + 1) % 3] if i in chosen else label) for i, (text, label) in enumerate(rows)
    ]
    return wrong, {f"line {i + 2}" for i in chosen}


@cache
def _vectors(texts):
    return layered_vectors(DEFAULT_BASE, texts, max_tokens=32)


def vectors(texts):
    """Those of the real base, asked for once for the same texts."""
    return _vectors(tuple(texts))


def findings_of(path, multi_label=False):
    table = Table.read(path, multi_label=multi_label)
    checked = check(table, count_tokens=lambda texts: [2 + len(text.split()) for text in texts], max_tokens=32)
    return {finding.code: finding for finding in check_labels(checked, vectors, multi_label=multi_label).findings}


def test_wrong_labels_are_found_and_right_ones_are_not(tmp_path):
    """The number is estimated, on the safe side: what is left comes to light when the first are corrected."""
    truth = sentences_of(70)
    rows, places = planted(truth, 10)

    found = []
    while finding := findings_of(write_csv(tmp_path / "data.csv", rows)).get("label_noise"):
        found.append({row["place"] for row in finding.rows})
        assert (finding.level, finding.count) == ("note", len(finding.rows))
        for row in finding.rows:
            i = int(row["place"].removeprefix("line ")) - 2
            assert (row["text"], row["given"], row["suggested"]) == (*rows[i], truth[i][1])
            assert 0.5 < row["probability"] <= 1
            rows[i] = (row["text"], row["suggested"])

    assert len(found[0]) >= 7
    assert set().union(*found) == places


def test_right_labels_are_left_in_peace(tmp_path):
    findings = findings_of(write_csv(tmp_path / "data.csv", sentences_of(70)))

    assert "label_noise" not in findings
    assert "label_unjudged" not in findings


def test_copies_do_not_vouch_for_each_other(tmp_path):
    """A wrong row that is there four times would otherwise be learnt from while it is judged."""
    rows, places = planted(sentences_of(70), 6)
    copies = [(f"{text}!", label) for i, (text, label) in enumerate(rows) if f"line {i + 2}" in places] * 3

    finding = findings_of(write_csv(tmp_path / "data.csv", rows + copies))["label_noise"]

    assert len(places & {row["place"] for row in finding.rows}) >= 4


def test_a_label_with_one_text_is_left_out_and_told(tmp_path):
    rows = [*sentences_of(30), ("thank you", "praise"), ("Thank you!", "praise")]

    findings = findings_of(write_csv(tmp_path / "data.csv", rows))

    assert findings["label_unjudged"].examples == ("'praise' (2 rows)",)
    assert (
        all("praise" not in (row["given"], row["suggested"]) for row in findings["label_noise"].rows)
        if ("label_noise" in findings)
        else True
    )


def test_spellings_of_a_label_are_no_wrong_labels(tmp_path):
    rows = [(text, label.upper() if i % 10 == 0 else label) for i, (text, label) in enumerate(sentences_of(70))]

    findings = findings_of(write_csv(tmp_path / "data.csv", rows))

    assert "label_variant" in findings
    assert "label_noise" not in findings


def test_of_several_labels_the_wrong_one_is_named(tmp_path):
    pairs = sentences_of(60)
    neighbours = zip(pairs, pairs[1:] + pairs[:1], strict=True)
    rows = [*((f"{one} {other}", f"{a}|{b}") for (one, a), (other, b) in neighbours), *pairs]
    rows[7] = (rows[7][0], "refund|login|parcel")  # two of them are in the text
    rows[-5] = (rows[-5][0], "")

    finding = findings_of(write_csv(tmp_path / "data.csv", rows), multi_label=True)["label_noise"]

    suggested = {row["place"]: row["suggested"] for row in finding.rows[:8]}
    assert set(suggested["line 9"].split("|")) == set(pairs[7][1:2] + pairs[8][1:2])
    assert suggested[f"line {len(rows) - 5 + 2}"] == pairs[-5][1]


def test_a_label_that_all_rows_have_is_not_doubted(tmp_path):
    rows = [(text, f"{label}|ticket") for text, label in sentences_of(60)]
    rows[7] = (rows[7][0], "parcel|ticket" if "parcel" not in rows[7][1] else "login|ticket")

    finding = findings_of(write_csv(tmp_path / "data.csv", rows), multi_label=True)["label_noise"]

    assert "line 9" in {row["place"] for row in finding.rows}
    assert all("ticket" in row["suggested"].split("|") for row in finding.rows)


def test_folds_are_even_and_keep_copies_together():
    rows = [Row(f"text {i % 90}", ("rare",) if i % 90 < 2 else ("ab"[i % 2],)) for i in range(100)]

    fold_of, alone = deal(rows, [row.text for row in rows], number=FOLDS)

    assert alone == []
    for label in ("a", "b"):
        sizes = Counter(fold_of[[row.labels == (label,) for row in rows]].tolist()).values()
        assert len(sizes) == FOLDS
        assert max(sizes) - min(sizes) <= 3
    assert len({fold_of[0], fold_of[1]}) == 2  # two texts of a rare label are not held out at once
    assert fold_of[:10].tolist() == fold_of[90:].tolist()
    assert np.array_equal(fold_of, deal(rows, [row.text for row in rows], number=FOLDS)[0])


def test_the_command_tells_and_cleans_nothing_away(tmp_path):
    rows, places = planted(sentences_of(30), 4)
    data, out = write_csv(tmp_path / "data.csv", rows), tmp_path / "clean.csv"

    done = run_command("check-data", data, "--label-noise", "--clean", out, "--json")
    told = run_command("check-data", data, "--label-noise")

    assert (done.returncode, told.returncode, told.stderr) == (0, 0, "")
    answer = json.loads(done.stdout)
    (finding,) = [finding for finding in answer["findings"] if finding["code"] == "label_noise"]
    first = finding["rows"][0]
    assert first["place"] in places
    assert first.keys() == {"place", "text", "given", "suggested", "probability"}
    assert answer["cleaned_rows"] == len(rows)
    assert f"    {first['place']}, {first['given']!r}, likelier {first['suggested']!r} (" in told.stdout


@pytest.mark.parametrize("labels", ["a", "ab", "aab", "abc"])
def test_a_file_too_small_to_judge_is_no_error(tmp_path, labels):
    rows = [(f"{word} it", label) for word, label in zip(AROUND, labels, strict=False)]

    assert "label_noise" not in findings_of(write_csv(tmp_path / "data.csv", rows))
    assert "label_noise" not in findings_of(write_csv(tmp_path / "data.csv", rows), multi_label=True)


def test_cleanlab_is_loaded_for_label_noise_alone(tmp_path):
    """It brings pandas along: two seconds that no other check needs."""
    data = write_csv(tmp_path / "data.csv", sentences_of(10))
    code = (
        "import sys\nfrom bertrand.__main__ import main\n"
        f"assert main(['check-data', {str(data)!r}]) == 0\n"
        "heavy = {'cleanlab', 'pandas', 'sklearn', 'torch'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
