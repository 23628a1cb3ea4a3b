"""What is wrong with labelled sentences: found before anything is learnt from them."""

from __future__ import annotations

import html
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from inference import treebank
from training import label_noise
from training.copies import fold, fold_case
from training.data import FEW, LABEL_SEPARATOR, Row, Table, broken_cells, label_names, split
from training.folds import deal
from training.probe import FOLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from training.label_noise import Doubt

SHOWN = 5  # examples of a finding
FEW_ROWS = 5  # of a label, with fewer of which neither learning nor measuring it says much
IMBALANCE = 20.0  # rows of the most frequent label over those of the rarest
SMALLEST_FILE = 20  # rows from which labels can look like ids
SOME_TEXTS = 1000  # of one label each, among which there may be none that can be spared
SPLIT_ROWS, SPLIT_SHARE = 3, 0.01  # from which on a file is one of the Penn Treebank's kind
EXCERPT = 80  # characters of a text that is shown

MISSING = frozenset(("nan", "null", "n/a", "#n/a", "<na>", "nat"))  # as tables are written, case folded

_HTML = re.compile(
    r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[a-zA-Z]\w{1,30});"
    r"|</?(?:a|b|br|div|em|h[1-6]|i|img|li|ol|p|span|strong|table|td|tr|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_LIST = re.compile(r"\[.*\]")
_SIGNS = re.compile(r"[|,;]")
_CLOSING = frozenset("«»‹›“”„‘’‚…™–—·\xa0")  # signs that may follow the last letter of a word
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")

Groups = dict[str, list[tuple[str, Row]]]  # the rows of each text as `fold` leaves it, with their places

LEVELS = ("error", "warning", "note")  # training refuses it; it costs accuracy or honesty; good to know


@dataclass(frozen=True)
class Finding:
    """One kind of flaw and how much of it there is."""

    code: str
    level: str  # of LEVELS
    count: int  # of rows, or of labels where the flaw is one of labels
    message: str
    examples: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()  # all of them, as JSON values, where each is worth a look

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; `rows` only where there are any."""
        return {name: value for name, value in vars(self).items() if name != "rows" or value}


@dataclass(frozen=True)
class Checked:
    """A file of labelled sentences and everything that was found in it."""

    table: Table
    tokens: list[int]  # of each row, special tokens included
    special: int  # tokens of a text of which the tokenizer leaves nothing
    findings: list[Finding]  # the gravest first

    @property
    def failed(self) -> bool:
        """Whether training would refuse the file."""
        return any(finding.level == "error" for finding in self.findings)

    @property
    def readable(self) -> Table:
        """Return the table without the rows of whose text the tokenizer leaves nothing."""
        rows = [row for row, count in zip(self.table.rows, self.tokens, strict=True) if count > self.special]
        return replace(self.table, rows=rows)

    def summary(self) -> dict[str, Any]:
        """Return the size of the file in figures."""
        counts = self.table.counts
        return {
            "file": str(self.table.path),
            "rows": len(self.table.rows),
            "labels": len(counts),
            "rows_of_a_label": _range(counts.values()),
            "tokens_of_a_text": _range(self.tokens),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        findings = [finding.to_json() for finding in self.findings]
        return self.summary() | {"label_counts": dict(self.table.counts.most_common()), "findings": findings}


def check(
    table: Table,
    against: Table | None = None,
    *,
    dev: Table | None = None,
    count_tokens: Callable[[list[str]], list[int]],
    max_tokens: int,
    dev_share: float = 0.1,
    seed: int = 0,
) -> Checked:
    """
    Look for everything that makes a model worse, or its measured accuracy better than it is.

    Args:
        table: The rows to learn from.
        against: The rows to measure on, which must not be known from `table`.
        dev: The rows to choose the epoch by, which must not be known from it either.
        count_tokens: Gives the tokens of each text, special tokens included.
        max_tokens: What the model will read of a text.
        dev_share: Part of the rows that training would keep to choose by, where there is no `dev`.
        seed: What it would draw them with.
    """
    (special,) = count_tokens([""])
    tokens = count_tokens([row.text for _, row in table.rows])
    others = [one for one in (against, dev) if one]
    files = [(table, tokens, "")]
    files += [(one, count_tokens([row.text for _, row in one.rows]), f" of {one.path}") for one in others]
    spelling = spellings(table, against)
    groups = _by_text(table)
    findings = chain(
        *(_bad_rows(one, where=where) for one, _, where in files),
        *(_unread(one, counts, special, where=where) for one, counts, where in files),
        _single_label(table),
        _texts_alone(groups, table, dev_share, seed) if not dev else (),
        _ids_for_labels(table),
        _unknown_labels(table, against) if against else (),
        _label_variants(table, against, spelling),
        _contradictions(groups, spelling),
        _leakage(groups, table, against, "accuracy there is memory, not skill") if against else (),
        _leakage(groups, table, dev, "the epoch and the temperature are chosen by memory, not skill") if dev else (),
        _leakage(_by_text(dev), dev, against, "what is measured on them has been chosen on them")
        if dev and against
        else (),
        _notation(table),
        _swallowed(table),
        _rare_labels(table),
        _imbalance(table),
        _too_long(table, tokens, max_tokens),
        _encoding(table),
        _html(table),
        _missing(table),
        _treebank(table),
        _copies(groups, spelling),
    )
    return Checked(table, tokens, special, sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


def check_labels(
    checked: Checked, vectors: Callable[[list[str]], NDArray[np.float32]], *, multi_label: bool = False
) -> Checked:
    """
    Look for labels that are probably wrong too: a note each for those, and for labels that cannot be judged.

    Args:
        checked: What `check` returned.
        vectors: Gives a vector of length 1 for each text, shape (texts, hidden).
        multi_label: A row may have several labels.
    """
    # In an order of its own, so that the order of the file changes nothing.
    table = replace(checked.table, rows=sorted(checked.table.rows, key=lambda item: (item[1].text, item[1].labels)))
    spelling = spellings(table)
    spelt = [Row(row.text, _respelt(row.labels, spelling)) for _, row in table.rows]
    fold_of, alone = deal(spelt, [fold(row.text) for row in spelt], number=FOLDS)
    # What cannot be judged is not learnt from either; of several labels a row, the others still can be.
    kept = [i for i, row in enumerate(spelt) if not row.labels or not set(alone).issuperset(row.labels)]
    rows = [Row(spelt[i].text, tuple(name for name in spelt[i].labels if name not in alone)) for i in kept]
    doubted: list[tuple[str, Row, Doubt]] = []
    if len(label_names(rows)) > 1:
        texts = list(dict.fromkeys(row.text for row in rows))
        vector_of = dict(zip(texts, vectors(texts), strict=True))
        stacked = np.stack([vector_of[row.text] for row in rows])
        doubts = label_noise.doubts(rows, fold_of[kept], stacked, multi_label=multi_label)
        doubted = [(*table.rows[kept[doubt.row]], doubt) for doubt in doubts]
    return replace(checked, findings=[*checked.findings, *_label_noise(doubted), *_unjudged(alone, table)])


def clean(table: Table, against: Table | None = None) -> list[Row]:
    """
    Return the rows that are worth learning from, in their order.

    Labels that are spelt in several ways get the most frequent one. Of copies the first stays; of those whose labels
    contradict each other, none does, and neither does a text that `against` has too.
    """
    spelling = spellings(table, against)
    known = {fold(row.text) for _, row in against.rows} if against else set()
    groups = [group for key, group in _by_text(table).items() if key not in known and not _is_torn(group, spelling)]
    # A dict is in the order in which its keys came: the first copies are in the order of the file.
    return [Row(group[0][1].text, _respelt(group[0][1].labels, spelling)) for group in groups]


def spellings(*tables: Table | None) -> dict[str, str]:
    """Return the most frequent spelling of each label that has several, in case or with _ or - for a blank."""
    counts = sum((table.counts for table in tables if table), Counter[str]())
    ways: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        ways[_fold_label(label)].append(label)
    found: dict[str, str] = {}
    for labels in ways.values():
        if len(labels) > 1:
            best = max(labels, key=lambda label: (counts[label], label))
            found |= dict.fromkeys(labels, best)
    return found


def _fold_label(label: str) -> str:
    # Signs between words only: A and A- are two grades.
    return _BETWEEN_WORDS.sub(" ", fold_case(label)).strip()


def _bad_rows(table: Table, *, where: str) -> Iterator[Finding]:
    if flaws := table.flaws:
        message = f"{_rows(len(flaws))}{where} without a text or a label, which training refuses"
        yield Finding("bad_row", "error", len(flaws), message, _some(map(str, flaws)))


def _unread(table: Table, tokens: Sequence[int], special: int, *, where: str) -> Iterator[Finding]:
    sizes = zip(table.rows, tokens, strict=True)
    if lost := [f"{table.path}, {place}: {_excerpt(row.text)}" for (place, row), count in sizes if count <= special]:
        message = (
            f"{_rows(len(lost))}{where} of whose text the tokenizer leaves nothing, as of U+FFFD alone: "
            "nothing can be said of them; take them out"
        )
        yield Finding("text_unread", "error", len(lost), message, _some(lost))


def _single_label(table: Table) -> Iterator[Finding]:
    counts = table.counts
    if len(counts) < 2 and (counts or not table.flaws):  # of bad rows alone there is nothing more to say
        message = (
            f"{f'only the label {next(iter(counts))!r}' if counts else 'no label'}: there is nothing to tell apart"
        )
        yield Finding("label_single", "error", len(counts), message)


def _texts_alone(groups: Groups, table: Table, share: float, seed: int) -> Iterator[Finding]:
    """Find what leaves no text to choose by: `training.pipeline` refuses it unless a --dev is named."""
    if len(table.counts) < 2:
        return
    one_each = all(len(row.labels) == 1 for _, row in table.rows)
    if one_each and len(table.counts) >= len(groups):
        message = "every label has one text only: none is left to choose by, so that training needs a --dev"
        yield Finding("text_alone", "error", len(groups), message)
    elif one_each and (len(table.rows) < FEW * len(table.counts) or len(groups) > SOME_TEXTS):
        return  # of few examples none is spared, and among many texts there is always one
    elif not split([row for _, row in table.rows], share=share, seed=seed)[1]:
        message = "no text can be spared that others share all labels with: training needs a --dev to choose by"
        yield Finding("text_alone", "error", len(groups), message)


def _notation(table: Table) -> Iterator[Finding]:
    """Find labels that are several, for a reader."""
    counts = table.counts
    several = {label for label in counts if _LIST.fullmatch(label) or _are_known(_SIGNS.split(label), counts)}
    if odd := [(place, row) for place, row in table.rows if several.intersection(row.labels)]:
        message = (
            f"{_rows(len(odd))} whose label seems to be several: they are told apart with --multi-label where they are "
            f"joined by {LABEL_SEPARATOR}, or are a list in JSON"
        )
        yield Finding(
            "label_list", "warning", len(odd), message, _some(f"{place}: {row.labels[0]!r}" for place, row in odd)
        )


def _are_known(parts: Sequence[str], counts: Mapping[str, int]) -> bool:
    return len(parts) > 1 and all(part.strip() in counts for part in parts)


def _swallowed(table: Table) -> Iterator[Finding]:
    """Find cells that a quotation mark has opened and a later row's has closed."""
    if table.path.suffix.lower() != ".tsv":
        return
    if odd := [f"{place}: {_excerpt(cell)}" for place, cell in broken_cells(table.path)]:
        message = (
            f"{_rows(len(odd))} with a tab or a line break in a cell: a quotation mark that begins a cell quotes all "
            "up to the next one, other rows too; double those that are meant, as RFC 4180 does, or write CSV"
        )
        yield Finding("swallowed", "warning", len(odd), message, _some(odd))


def _ids_for_labels(table: Table) -> Iterator[Finding]:
    counts, rows = table.counts, len(table.rows)
    alone = sum(any(counts[label] == 1 for label in row.labels) for _, row in table.rows)
    if rows >= SMALLEST_FILE and alone * 2 > rows:
        message = (
            f"{alone} of {rows} rows have a label that no other row has: the label column looks like an id or a text; "
            "name another one"
        )
        once = (label for label in counts if counts[label] == 1)
        yield Finding("label_id", "error", alone, message, _some(map(repr, once)))


def _unknown_labels(table: Table, against: Table) -> Iterator[Finding]:
    ours, theirs = table.counts, against.counts
    if unknown := sorted(theirs.keys() - ours.keys()):
        message = f"{_labels(len(unknown))} of {against.path} that {table.path} has no row of: nothing can learn them"
        yield Finding("label_unknown", "error", len(unknown), message, _counted(unknown, theirs))
    if missing := sorted(ours.keys() - theirs.keys()):
        message = f"{_labels(len(missing))} that {against.path} has no row of: how well they are told is not measured"
        yield Finding("label_unmeasured", "note", len(missing), message, _counted(missing, ours))


def _label_variants(table: Table, against: Table | None, spelling: Mapping[str, str]) -> Iterator[Finding]:
    counts = table.counts + (against.counts if against else Counter())
    ways: dict[str, list[str]] = defaultdict(list)
    for label, best in spelling.items():
        ways[best].append(label)
    if ways:
        message = (
            f"{_labels(len(spelling))} that differ in case, blanks, _ and -, or in how a character is encoded, and are "
            "learnt as different"
        )
        shown = (
            " and ".join(f"{name} ({_rows(counts[label])})" for label, name in _told_apart(labels))
            for labels in ways.values()
        )
        yield Finding("label_variant", "warning", len(spelling), message, _some(shown))


def _told_apart(labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give labels and how they are shown: by code points, where they look the same."""
    looks = Counter(unicodedata.normalize("NFC", label) for label in labels)
    alike = any(times > 1 for times in looks.values())
    return ((label, ascii(label) if alike else repr(label)) for label in labels)


def _contradictions(groups: Groups, spelling: Mapping[str, str]) -> Iterator[Finding]:
    torn = [group for group in groups.values() if _is_torn(group, spelling)]
    if torn:
        count = sum(map(len, torn))
        message = f"{_rows(count)} whose text, but for case and punctuation, has different labels in different rows"
        examples = (
            f"{_excerpt(group[0][1].text)}: "
            + ", ".join(f"{'|'.join(row.labels) or 'no label'} ({place})" for place, row in group[:SHOWN])
            for group in torn
        )
        yield Finding("contradiction", "warning", count, message, _some(examples))


def _copies(groups: Groups, spelling: Mapping[str, str]) -> Iterator[Finding]:
    """Find rows that say what an earlier one says."""
    same: list[str] = []
    alike: list[str] = []
    for group in groups.values():
        if _is_torn(group, spelling):
            continue
        (first, row), *others = group
        texts = {row.text}
        for place, row in others:
            (same if row.text in texts else alike).append(f"{place}, as {first}: {_excerpt(row.text)}")
            texts.add(row.text)
    if same:
        yield Finding("duplicate", "note", len(same), f"{_rows(len(same))} that repeat an earlier one", _some(same))
    if alike:
        message = f"{_rows(len(alike))} that repeat an earlier one but for case, punctuation or spacing"
        yield Finding("near_duplicate", "note", len(alike), message, _some(alike))


def _leakage(groups: Groups, table: Table, against: Table, consequence: str) -> Iterator[Finding]:
    places = {key: group[0][0] for key, group in groups.items()}
    known = [
        f"{place}, as {places[key]} of {table.path}: {_excerpt(row.text)}"
        for place, row in against.rows
        if (key := fold(row.text)) in places
    ]
    if known:
        message = (
            f"{_rows(len(known))} of {against.path} whose text, but for case and punctuation, {table.path} has too: "
            f"{consequence}"
        )
        yield Finding("leakage", "warning", len(known), message, _some(known))


def _rare_labels(table: Table) -> Iterator[Finding]:
    counts = table.counts
    if rare := sorted((label for label in counts if counts[label] < FEW_ROWS), key=lambda name: (counts[name], name)):
        message = f"{_labels(len(rare))} with fewer than {FEW_ROWS} rows: too few to learn from and to choose by"
        yield Finding("label_rare", "warning", len(rare), message, _counted(rare, counts))


def _imbalance(table: Table) -> Iterator[Finding]:
    counts = table.counts.most_common()
    if counts and counts[0][1] >= IMBALANCE * counts[-1][1]:
        (most, many), (least, few) = counts[0], counts[-1]
        message = (
            f"{most!r} has {many / few:.0f} times as many rows as {least!r} ({many} and {few}): judge by macro-F1, and "
            "try --class-weights balanced"
        )
        yield Finding("imbalance", "warning", 1, message)


def _too_long(table: Table, tokens: Sequence[int], max_tokens: int) -> Iterator[Finding]:
    sizes = zip(table.rows, tokens, strict=True)
    if long := [f"{place}: {count} tokens" for (place, _), count in sizes if count > max_tokens]:
        message = f"{_rows(len(long))} of more than {max_tokens} tokens, of which the start is read; see --max-tokens"
        yield Finding("too_long", "warning", len(long), message, _some(long))


def _signs(table: Table, first: Callable[[str], str | None]) -> list[str]:
    """Return where texts and labels have a sign of something; `first` returns the first one of a text, if any."""
    odd = [f"{place}: {sign} in {_excerpt(row.text)}" for place, row in table.rows if (sign := first(row.text))]
    return odd + [f"label {label!r}" for label in table.counts if first(label)]


def _encoding(table: Table) -> Iterator[Finding]:
    if odd := _signs(table, _first_misread):
        message = (
            f"{_rows(len(odd))} or labels with signs of a wrong decoding, such as Ã© for é or U+FFFD; read the source "
            "anew"
        )
        yield Finding("encoding", "warning", len(odd), message, _some(odd))


def _html(table: Table) -> Iterator[Finding]:
    if odd := _signs(table, _first_html):
        message = (
            f"{_rows(len(odd))} with HTML in text or label, such as &amp; or <br>, which is learnt as it is: "
            "take it out, unless those who ask will write it too"
        )
        yield Finding("html", "note", len(odd), message, _some(odd))


def _first_html(text: str) -> str | None:
    """Return the first tag, or name of a character, of a text, as HTML has them."""
    return next((found for found in _HTML.findall(text) if found[0] == "<" or html.unescape(found) != found), None)


def _missing(table: Table) -> Iterator[Finding]:
    counts = table.counts
    if odd := [label for label in counts if label.casefold() in MISSING or label == "None"]:
        message = (
            f"{_labels(len(odd))} that read as programs write a value that is missing: they are learnt as any other; "
            "take these rows out if they have none"
        )
        yield Finding("label_missing", "note", len(odd), message, _counted(odd, counts))


def _treebank(table: Table) -> Iterator[Finding]:
    if split := treebank_rows(table):
        message = (
            f"{_rows(len(split))} with words split as in the Penn Treebank, such as do n't and -LRB-: training reads "
            "them as people write them, unless it is given --detokenize none"
        )
        examples = (f"{place}: {_excerpt(row.text)}" for place, row in split)
        yield Finding("treebank", "note", len(split), message, _some(examples))


def treebank_rows(table: Table) -> list[tuple[str, Row]]:
    """Return the rows that are split as in the Penn Treebank, with their places; none where they are next to none."""
    split = [(place, row) for place, row in table.rows if treebank.is_split(row.text)]
    return split if len(split) >= max(SPLIT_ROWS, SPLIT_SHARE * len(table.rows)) else []


def _first_misread(text: str) -> str | None:
    """Return what was decoded wrongly in a text: U+FFFD, or letters whose bytes in Windows-1252 are UTF-8."""
    if "\ufffd" in text:
        return "\ufffd"
    runs = (
        run[0]
        for run in _NOT_ASCII.finditer(text)
        if _is_utf8(run[0]) and not _ends_a_word(run[0], text[: run.start()][-1:], text[run.end() :][:1])
    )
    return next(runs, None)


def _is_utf8(run: str) -> bool:
    try:
        # Bytes that Windows-1252 has no character for are read as control characters.
        single = b"".join(one.encode("latin-1" if "\x80" <= one <= "\x9f" else "cp1252") for one in run)
        single.decode("utf-8")
    except UnicodeError:
        return False
    return True


def _ends_a_word(run: str, before: str, after: str) -> bool:
    """Say whether a run is a letter and what closes a word, as in MENÜ” or Spaß…, which may be UTF-8 by chance."""
    letter, signs = run[0], run[1:]
    if after.isalnum() or not all(sign in _CLOSING for sign in signs):
        return False
    # Of é in UTF-8, the first byte is a capital letter in Windows-1252: odd after a small one.
    return letter.islower() or before.isupper() or not (before.isalpha() or letter in "ÂÃ")


def _label_noise(doubted: Sequence[tuple[str, Row, Doubt]]) -> Iterator[Finding]:
    if doubted:
        message = (
            f"{_rows(len(doubted))} whose label is probably wrong, judged by the rows that are like them, the most "
            "doubtful first: a guess, so read before you change them; --json gives all"
        )
        examples = (
            f"{place}, {_joined(row.labels)}, likelier {_joined(doubt.suggested)} ({doubt.probability:.2f}): "
            f"{_excerpt(row.text)}"
            for place, row, doubt in doubted
        )
        rows = (
            {
                "place": place,
                "text": row.text,
                "given": LABEL_SEPARATOR.join(row.labels),
                "suggested": LABEL_SEPARATOR.join(doubt.suggested),
                "probability": round(doubt.probability, 4),
            }
            for place, row, doubt in doubted
        )
        yield Finding("label_noise", "note", len(doubted), message, _some(examples), tuple(rows))


def _unjudged(alone: Sequence[str], table: Table) -> Iterator[Finding]:
    if alone:
        message = f"{_labels(len(alone))} with one text alone, of which --label-noise cannot judge whether it is right"
        yield Finding("label_unjudged", "note", len(alone), message, _counted(alone, table.counts))


def _joined(labels: Sequence[str]) -> str:
    return repr(LABEL_SEPARATOR.join(labels)) if labels else "no label"


def _by_text(table: Table) -> Groups:
    groups: Groups = defaultdict(list)
    for place, row in table.rows:
        groups[fold(row.text)].append((place, row))
    return groups


def _is_torn(group: Sequence[tuple[str, Row]], spelling: Mapping[str, str]) -> bool:
    return len({_respelt(row.labels, spelling) for _, row in group}) > 1


def _respelt(labels: tuple[str, ...], spelling: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted({spelling.get(label, label) for label in labels}))


def _range(values: Iterable[int]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {"least": 0, "median": 0, "most": 0}
    return {"least": ordered[0], "median": statistics.median(ordered), "most": ordered[-1]}


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _labels(count: int) -> str:
    return f"{count} label{'' if count == 1 else 's'}"


def _counted(labels: Iterable[str], counts: Mapping[str, int]) -> tuple[str, ...]:
    return _some(f"{label!r} ({_rows(counts[label])})" for label in labels)


def _some(examples: Iterable[str]) -> tuple[str, ...]:
    return tuple(example for example, _ in zip(examples, range(SHOWN), strict=False))


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…")
