"""The explorer page in a real browser, against real services."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from service.errors import ApiError
from service.schema import InfoAnswer
from tests.support import contrast, make_base, manifest_of, serving, until, with_another_temperature, write_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

playwright = pytest.importorskip("playwright.sync_api", reason="the browser's driver is missing: `make setup`")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing: `make setup`")
expect = playwright.expect
expect.set_options(timeout=30_000)  # milliseconds; its own five seconds are few on a busy machine

BANK = ["i love the card in the box", "the order of my card is late", "my card is in the box, thank you"]
EMOJI = "the 😀👍🏽 card e\u0301 is orders 日本 😀"
KEY = "the-key-of-the-explorer-tests"
VIEWS = ("labels", "types", "compare", "file", "code", "model")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if not found:
        pytest.skip("no chromium on this machine: `make browser` installs it")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A service with a key and tight limits, and the link it serves: to a model with 77 labels that learnt nothing."""
    import transformers

    from training.finished import export

    folder = tmp_path_factory.mktemp("guarded")
    base = make_base(folder / "base", "bert")
    names = dict(enumerate(f"label_number_{i}" for i in range(77)))
    model = transformers.BertForSequenceClassification.from_pretrained(base, id2label=names)
    model.save_pretrained(folder / "checkpoint")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder / "checkpoint")
    rows = write_csv(folder / "rows.csv", [(text, names[0]) for text in BANK])
    export(str(folder / "checkpoint"), folder / "model", data=rows, measured=False)
    limits = {"BERTRAND_MAX_INPUTS": "3", "BERTRAND_MAX_TEXT_CHARACTERS": "300", "BERTRAND_MAX_BODY_BYTES": "2000"}
    (folder / "current").symlink_to(folder / "model")
    with serving(folder / "current", BERTRAND_API_KEYS=KEY, **limits) as url:
        yield url, folder / "current"


@contextmanager
def opened(browser: Any, url: str, *, faults: str = "(?!)", view: str = "", **options: Any) -> Iterator[Any]:
    """
    A tab with the page, which must ask nobody else and complain of nothing.

    Args:
        browser: Which opens it.
        url: Of the service.
        faults: What it may complain of: the browser logs answers that are errors, whatever the page makes of them.
        view: The tab of the page that is open.
        options: Of the browser's context.
    """
    context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce"} | options)
    tab = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(f"{url}/#{view}" if view else url)
    yield tab
    assert [words for words in complaints if not re.search(faults, words)] == []
    assert [address for address in asked if not address.startswith((f"{url}/", f"blob:{url}/"))] == []
    context.close()


def write(tab: Any, *sentences: str) -> None:
    tab.fill("#sentences", "\n".join(sentences))
    settled(tab, len(sentences))


def settled(tab: Any, count: int) -> None:
    expect(tab.locator("#reading")).to_have_text(re.compile(rf"^{count} sentences? read in "))


def explained(tab: Any) -> None:
    """Wait until every token has its importance."""
    expect(tab.locator(".card button.token small").first).not_to_have_text("·")
    expect(tab.locator(".card button.token small", has_text="·")).to_have_count(0)


def ask(client: Any, route: str, **body: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/v1/{route}", json=body)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def figure(text: str) -> float:
    """Read a number as the page writes it."""
    return float(re.sub(r"[\u2212]", "-", text).replace("%", "").replace(",", "").strip())


def figures(table: Any) -> np.ndarray:
    """Read the figures of a heat map."""
    rows = table.locator("tbody tr").all()
    return np.array([[figure(text.split()[0]) for text in row.locator("td").all_inner_texts()] for row in rows])


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return unit(one) @ unit(other).T


def flaws(tab: Any) -> list[tuple[str, str]]:
    """Return what axe-core finds wrong, serious or not."""
    found = axe.Axe().run(tab).response["violations"]
    return [(flaw["id"], flaw["nodes"][0]["html"]) for flaw in found]


def channels(colour: str) -> np.ndarray:
    """Read a colour as a browser computes it, such as rgb(132, 141, 151)."""
    return np.array([int(value) / 255 for value in re.findall(r"\d+", colour)[:3]])


def answering(error: ApiError) -> Callable[[Any], None]:
    """Return what gives the browser an error, as the service itself words it."""
    reply = error.reply("request-id")
    headers = {"content-type": reply.media_type} | dict(reply.headers)
    return lambda route: route.fulfill(status=reply.status, body=reply.body, headers=headers)


@pytest.mark.parametrize(("viewport", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_every_view_is_accessible_and_fits(browser, server, tmp_path, viewport, scheme):
    rows = write_csv(tmp_path / "rows.csv", [(text, "x") for text in BANK])
    with opened(browser, server, viewport=viewport, color_scheme=scheme) as tab:
        write(tab, *BANK, " ".join(BANK))  # the last one's table is wider than any of the screens
        explained(tab)
        for view in VIEWS:
            tab.click(f"#tab-{view}")
            if view == "types":
                tab.fill("#word", "card")
                tab.keyboard.press("Enter")
                expect(tab.locator(".plane")).to_be_visible()
            if view == "compare":
                tab.select_option("#second", "3")
            if view == "file":
                tab.set_input_files("#upload", rows)
                tab.get_by_role("button", name="Label 3 rows").click()
                expect(tab.get_by_role("button", name="Download as CSV")).to_be_visible()
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        # All views at once: a run of axe takes a second whatever it looks at.
        every = "document.querySelectorAll('[role=tabpanel], details')"
        tab.evaluate(f"{every}.forEach((part) => {{ part.hidden = false; part.open = true; }})")
        assert flaws(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_edge_of_a_field_is_seen(browser, server, scheme):
    """A field has nothing but its edge to be seen by; axe-core looks at text alone."""
    with opened(browser, server, color_scheme=scheme) as tab:
        fields = tab.locator("textarea, select, input[type=text], input[type=password], .drop")
        edges = fields.evaluate_all(
            """all => all.map((field) => [field.id, getComputedStyle(field).borderTopColor,
                getComputedStyle(document.body).backgroundColor, getComputedStyle(field).backgroundColor])"""
        )
        assert {"sentences", "word", "first", "route", "key", "drop"} <= {name for name, *_ in edges}
        for name, edge, *surfaces in edges:
            for surface in surfaces:
                assert "rgba" in surface or contrast(channels(edge), channels(surface)) >= 3, name


def test_labels_and_importance_are_those_of_the_service(browser, server, client):
    texts = ["where is the refund on my card", "thank you, great app"]
    against = "all => all.map((chip) => chip.classList.contains('against'))"
    analyzed = ask(client, "analyze", inputs=texts, embeddings=[])
    reasons = ask(client, "explain", inputs=texts)
    with opened(browser, server) as tab:
        write(tab, *texts)
        explained(tab)
        cards = tab.locator("#cards article").all()
        for card, result, reason in zip(cards, analyzed, reasons, strict=True):
            assert card.locator("h3 .label").inner_text() == result["label"]
            assert card.locator(".scores .name").all_inner_texts() == [row["label"] for row in result["scores"]]
            shown = [figure(text.strip("<>")) for text in card.locator(".scores .figure").all_inner_texts()]
            assert shown == pytest.approx([100 * row["score"] for row in result["scores"]], abs=0.06)
            real = [token for token in reason["tokens"] if not token["special"]]
            chips = card.locator("button.token")
            assert chips.locator("span").all_inner_texts() == [token["text"] for token in real]
            importance = [figure(text) for text in chips.locator("small").all_inner_texts()]
            assert importance == pytest.approx([token["importance"] for token in real], abs=5.1e-4)
            tints = chips.evaluate_all("all => all.map((chip) => Number(chip.style.getPropertyValue('--share')))")
            assert np.argmax(tints) == np.argmax(np.abs([token["importance"] for token in real]))
            assert max(tints) > 0
            assert chips.evaluate_all(against) == [token["importance"] < -0.0005 for token in real]

        first = cards[0]
        first.get_by_text("Tokens as a table").click()
        expect(first.locator("tbody tr")).to_have_count(len(reasons[0]["tokens"]))
        rows = [row.locator("th, td").all_inner_texts() for row in first.locator("tbody tr").all()]
        for row, token in zip(rows, reasons[0]["tokens"], strict=True):
            assert row[:2] == [token["text"], str(token["id"])]
            assert row[2] == ("–" if token["special"] else f"{token['start']} to {token['end']}")
            assert row[3] == "–" if token["special"] else figure(row[3]) == pytest.approx(token["importance"], abs=6e-5)
            if not token["special"]:
                assert figure(row[4]) == pytest.approx(token["weight_of_evidence"], abs=6e-4)

        other = analyzed[0]["scores"][1]["label"]
        (reason,) = ask(client, "explain", inputs=texts[:1], label=other)
        first.get_by_label("Importance for").select_option(label=other)
        expect(first.locator(".about")).to_contain_text(f"{other} has")
        shown = [figure(text) for text in first.locator("button.token small").all_inner_texts()]
        importance = [token["importance"] for token in reason["tokens"] if not token["special"]]
        assert shown == pytest.approx(importance, abs=5.1e-4)
        assert first.locator("button.token").evaluate_all(against) == [value < -0.0005 for value in importance]
        assert min(importance) < -0.0005, "the test needs a token that speaks against a label"


def test_offsets_count_characters_and_not_their_halves(browser, server, client):
    """Beyond the 16-bit ones a character is two elements of a JavaScript string."""
    (result,) = ask(client, "tokenize", inputs=EMOJI)
    real = [token for token in result["tokens"] if not token["special"]]
    assert any(ord(letter) > 0xFFFF for letter in EMOJI)
    with opened(browser, server) as tab:
        write(tab, EMOJI)
        tab.get_by_label("characters").check()
        chips = tab.locator("button.token")
        assert chips.locator("span").all_inner_texts() == [EMOJI[token["start"] : token["end"]] for token in real]
        assert chips.locator("small").all_inner_texts() == [f"{token['start']}–{token['end']}" for token in real]
        tab.get_by_label("id", exact=True).check()
        assert chips.locator("small").all_inner_texts() == [str(token["id"]) for token in real]
        found = tab.evaluate(
            "async ([text, tokens]) => (await import('/web/text.js')).words(text, tokens)", [EMOJI, result["tokens"]]
        )
        assert [EMOJI[word["start"] : word["end"]] for word in found] == [word["text"] for word in found]
        assert [word["text"] for word in found] == [
            "the",
            "😀👍🏽",
            "card",
            "e\u0301",
            "is",
            "orders",
            "日",
            "本",
            "😀",
        ]


def test_what_is_typed_on_gives_up_what_was_asked_before(browser, server):
    with opened(browser, server) as tab:
        settled(tab, 4)
        held: list[Any] = []
        given_up: list[str] = []
        tab.on("requestfailed", lambda request: given_up.append(request.url))
        tab.route("**/v1/analyze", lambda route: held.append(route) if not held else route.continue_())
        with tab.expect_request("**/v1/analyze"):
            tab.fill("#sentences", "the parcel")
        write(tab, "the parcel is late")
        assert given_up == [f"{server}/v1/analyze"]
        assert tab.locator(".tokens button.token span").all_inner_texts() == ["the", "parcel", "is", "late"]


def test_importance_that_was_given_up_is_asked_for_again(browser, server):
    """A sentence that stays while another is typed keeps its card, and what was asked for that card was given up."""
    with opened(browser, server) as tab:
        settled(tab, 4)
        explained(tab)
        held: list[Any] = []
        tab.route("**/v1/explain", lambda route: route.continue_() if held else held.append(route))
        with tab.expect_request("**/v1/explain"):
            write(tab, "the parcel", "my card")
        write(tab, "the parcel", "my card is late")
        explained(tab)


def test_a_pause_of_typing_is_one_request(browser, server):
    with opened(browser, server) as tab:
        settled(tab, 4)
        asked: list[Any] = []
        tab.on("request", lambda request: request.url.endswith("/analyze") and asked.append(request.post_data_json))
        tab.fill("#sentences", "")
        tab.locator("#sentences").press_sequentially("the box\n\nmy card", delay=10)
        settled(tab, 2)
        tab.locator("#sentences").press_sequentially("\n the box")
        settled(tab, 3)
        assert [body["inputs"] for body in asked] == [["the box", "my card"], [" the box"]], "known sentences are kept"


def test_what_is_known_has_a_bound_in_bytes(browser, server):
    """The vectors of one long sentence of a large model are 1.6 MB, which the tiny one has for no sentence."""
    read = """async (texts) => { const { Reading } = await import('/web/reading.js');
        const data = btoa("\\0".repeat(4 * 512 * 768)), asked = [];
        const result = { status: "ok", tokens: [], token_embeddings: { data, shape: [512, 768], dtype: "float32" } };
        const reading = new Reading({ analyze: (inputs) => { asked.push(...inputs);
            return { model: { version: "1" }, results: inputs.map(() => result) }; } });
        const limits = { max_inputs: 50, max_body_bytes: 1e6, max_queue_tokens: 1e6 };
        for (const text of texts) await reading.read([text], limits, new AbortController().signal);
        return asked; }"""
    texts = [str(i) for i in range(25)]
    with opened(browser, server) as tab:
        assert tab.evaluate(read, [*texts, texts[-1], texts[0]]) == [*texts, texts[0]]


def test_one_word_has_one_type_row_and_a_vector_for_each_token(browser, server, client):
    analyzed = ask(client, "analyze", inputs=BANK)
    (word,) = ask(client, "types", inputs="card")
    row = np.array(word["type_embeddings"])
    places = [[t["text"] for t in result["tokens"]].index("card") for result in analyzed]
    vectors = np.array([result["token_embeddings"][at] for result, at in zip(analyzed, places, strict=True)])
    between = cosines(vectors, vectors)[np.triu_indices(3, 1)]
    everything = np.vstack([row, vectors])
    with opened(browser, server) as tab:
        write(tab, *BANK)
        tab.locator("article").nth(1).get_by_role("button", name="card").click()
        expect(tab.get_by_role("tab", name="Types and tokens")).to_be_focused()
        finding = tab.locator(".finding")
        expect(finding).to_contain_text("“card” has one type row, the same at all 3 places: cosine 1.000.")
        least, mean = (
            float(value)
            for value in re.findall(r"cosine between them is (0\.\d+) at the least and (0\.\d+)", finding.inner_text())[
                0
            ]
        )
        assert (least, mean) == pytest.approx((between.min(), between.mean()), abs=6e-4)
        assert least < 0.99
        shown = figures(tab.locator("#senses table.heat"))
        np.testing.assert_allclose(shown, cosines(everything, everything), atol=5.1e-3)
        assert tab.locator(".uses mark").all_inner_texts() == ["card"] * 3

        tab.get_by_text("Coordinates as a table").click()
        points = [row.locator("td").all_inner_texts() for row in tab.locator("#senses details tbody tr").all()]
        drawn = np.array([[figure(value) for value in row] for row in points])
        unit = everything / np.linalg.norm(everything, axis=1, keepdims=True)
        u, s, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
        expected = u[:, :2] * s[:2]
        expected *= np.sign((drawn * expected).sum(axis=0))  # which side of an axis is the positive one is arbitrary
        np.testing.assert_allclose(drawn, expected, atol=6e-4)
        share = re.search(r"first axis: ([\d.]+)", tab.locator(".plane").inner_html())
        assert float(share[1]) == pytest.approx(100 * s[0] ** 2 / (s**2).sum(), abs=0.06)

        circles = "all => all.map((mark) => [mark.cx.baseVal.value, mark.cy.baseVal.value])"
        diamond = re.match(r"M([\d.]+) ([\d.]+)l", tab.locator(".plane path.type").get_attribute("d"))
        top = (float(diamond[1]), float(diamond[2]) + 8)
        marks = np.array([top, *tab.locator(".plane circle.token").evaluate_all(circles)])
        marks -= marks.mean(axis=0)
        lie = (expected - expected.mean(axis=0)) * [1, -1]  # pixels count downwards
        scale = (marks * lie).sum() / (lie**2).sum()
        assert scale > 0
        np.testing.assert_allclose(marks, scale * lie, atol=0.5)

        tab.get_by_label("type row").uncheck()
        expect(tab.locator(".plane .type")).to_have_count(0)
        tab.get_by_label("all other tokens").check()
        real = sum(not token["special"] for result in analyzed for token in result["tokens"])
        expect(tab.locator(".plane circle.other")).to_have_count(real - 3)


def test_what_is_said_of_a_word_follows_from_the_figures(browser, server, client):
    with opened(browser, server, view="types") as tab:
        finding = tab.locator(".finding")

        def look(word: str, *sentences: str) -> str:
            write(tab, *sentences)
            tab.fill("#word", word)
            tab.get_by_role("button", name="Show").click()
            expect(finding).to_contain_text(f"“{word}”")
            expect(tab.locator("#senses")).not_to_have_attribute("aria-busy", "true")
            return str(finding.inner_text())

        assert "stands in none of the sentences" in look("parcel", *BANK)
        assert "it has the row of every unknown word" in look("bank", "the bank", "my bank please")
        assert "write it into another sentence" in look("love", *BANK)
        assert "have the same vector too: cosine 1.000." in look("box", "the box", "the box")
        pieces = look("orders", "my orders", "the orders of the box")
        assert "2 pieces (order and s), so every vector here is the mean over them" in pieces
        assert "not the same" in pieces
        (one,), (other,) = (ask(client, "analyze", inputs=text) for text in ("my orders", "the orders of the box"))
        means = [np.mean(result["token_embeddings"][2:4], axis=0, keepdims=True) for result in (one, other)]
        assert f"the cosine between them is {cosines(*means)[0, 0]:.3f}." in pieces
        assert tab.locator("#words button").all_inner_texts() == ["orders 2"]


def test_a_word_of_several_rows_is_not_said_to_have_one(browser, server):
    """A model that minds the case has a row for each spelling; the sentence about it must not be fixed."""
    with opened(browser, server) as tab:
        say = "async (...given) => (await import('/web/finding.js')).finding(...given[0])"
        type_row = {"pieces": [{"text": "Card"}], "unknown": False}
        told = tab.evaluate(say, ["Card", type_row, [[1, 0.5], [0.5, 1]], [[1, 0.2], [0.2, 1]]])
        assert "type rows of their own: the cosine between them is 0.500." in told
        assert "the cosine between them is 0.200." in told
        assert "one type row" not in told


def test_two_sentences_are_compared_token_by_token(browser, server, client):
    analyzed = ask(client, "analyze", inputs=BANK)
    real = [[not token["special"] for token in result["tokens"]] for result in analyzed]
    vectors = [np.array(result["token_embeddings"])[kept] for result, kept in zip(analyzed, real, strict=True)]
    whole = [np.array([result["sentence_embedding"]]) for result in analyzed]
    with opened(browser, server, view="compare") as tab:
        write(tab, *BANK)
        tab.get_by_label("Across", exact=True).select_option("2")
        expected = cosines(vectors[0], vectors[2])
        heat = tab.locator("#comparison table.heat")
        np.testing.assert_allclose(figures(heat), expected, atol=5.1e-3)
        heads = heat.locator("thead th").all_inner_texts()
        assert heads == [token["text"] for token in analyzed[2]["tokens"] if not token["special"]]
        framed = heat.locator("tbody tr").nth(0).locator("td").nth(int(expected[0].argmax()))
        expect(framed).to_have_class(re.compile("framed"))
        tiles = tab.locator("#comparison .tiles dd").all_inner_texts()
        assert float(tiles[0].split()[0]) == pytest.approx(cosines(whole[0], whole[2])[0, 0], abs=6e-4)
        matches = np.concatenate([expected.max(axis=1), expected.max(axis=0)])
        assert float(tiles[1].split()[0]) == pytest.approx(matches.mean(), abs=6e-4)
        tab.locator("summary", has_text="Best matches of sentence 1 in 3").click()
        found = tab.locator("#comparison details").first.locator("td.text").all_inner_texts()
        assert found == [heads[i] for i in expected.argmax(axis=1)]
        tab.get_by_role("button", name="Swap").click()
        np.testing.assert_allclose(figures(heat), expected.T, atol=5.1e-3)


def test_a_second_sentence_is_compared_with_the_first_once_it_is_there(browser, server):
    """With one sentence there is nothing but itself to compare it with; that was nobody's choice."""
    with opened(browser, server, view="compare") as tab:
        write(tab, BANK[0])
        expect(tab.locator("#comparison")).to_contain_text("A sentence beside itself")
        tab.get_by_role("button", name="Swap").click()
        write(tab, *BANK)
        expect(tab.get_by_label("Across", exact=True)).to_have_value("1")
        tab.get_by_label("Across", exact=True).select_option("2")
        write(tab, *BANK[:2])
        expect(tab.get_by_label("Across", exact=True)).to_have_value("1")
        write(tab, *BANK)
        expect(tab.get_by_label("Across", exact=True)).to_have_value("2")


def test_what_is_copied_runs(browser, server, client):
    """Quotes, backslashes, the end of a here-document and other scripts stand in the sentences."""
    texts = ['it\'s "my" $HOME `card` \\ $(id)', "JSON", EMOJI]
    bodies = {
        "classify": {"inputs": texts, "top_k": 3},
        "explain": {"inputs": texts[:1]},
        "types": {"inputs": ["bank"]},
    }
    with opened(browser, server, view="code", permissions=["clipboard-read", "clipboard-write"]) as tab:
        write(tab, *texts)
        for route, body in bodies.items():
            expected = ask(client, route, **body)
            tab.get_by_label("Ask for").select_option(route)
            for name, run in (("curl", ["bash", "-c"]), ("python", [sys.executable, "-c"])):
                tab.evaluate("navigator.clipboard.writeText('')")
                tab.get_by_role("button", name=f"Copy as {name}").click()
                expect(tab.locator(f"#copy-{name}")).to_have_text("Copied")
                copied = tab.evaluate("navigator.clipboard.readText()")
                printed = subprocess.run([*run, copied], capture_output=True, check=True).stdout.decode()
                answer = (
                    json.loads(printed)["results"] if name == "curl" else list(map(json.loads, printed.splitlines()))
                )
                assert answer == expected, copied


def test_a_file_comes_back_with_labels_and_nothing_else_changed(browser, server, client, tmp_path):
    """A formula stays one: what stands in the file is the user's text."""
    texts = [
        'my "card", please',
        "two\nlines\r\nof text",
        "",
        "=1+2",
        "  the box ",
        EMOJI,
        *(f"the order {i}" for i in range(70)),
    ]
    source = io.StringIO()
    writer = csv.writer(source)
    writer.writerows([["id", "label", "text"], *([f"00{i}", "", text] for i, text in enumerate(texts))])
    written = source.getvalue() + "1,too,many,fields\r\n\r\nshort\r\n"
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + written.encode())
    asked: list[int] = []
    with opened(browser, server, view="file") as tab:
        tab.on(
            "request",
            lambda request: request.url.endswith("/classify") and asked.append(len(request.post_data_json["inputs"])),
        )
        tab.set_input_files("#upload", path)
        expect(tab.get_by_label("Text is in")).to_have_value("2")
        expect(tab.locator("#job .notice")).to_contain_text(
            "2 rows cannot be read as the others, and will stay without a label"
        )
        expect(tab.locator("#job .notice li").first).to_have_text(
            f"line {2 + len(texts) + 2}: fields_uneven: 4 fields where the first row has 3"
        )
        tab.get_by_role("button", name=f"Label {len(texts)} rows").click()
        expect(tab.locator(".done")).to_contain_text(f"{len(texts) - 1} rows labelled, 3 without an answer.")
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Download as CSV").click()
        assert download.value.suggested_filename == "rows.labelled.csv"
        labelled = download.value.path().read_bytes()
    assert sum(asked) == len(texts)
    assert len(asked) > 1
    assert labelled.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(labelled.decode("utf-8-sig"), newline="")))
    given = list(csv.reader(io.StringIO(written, newline="")))
    added = ["label", "score", "status", "error", "truncated", "token_count"]
    assert rows[0] == [*given[0], *(f"predicted_{name}" for name in added)]
    expected = ask(client, "classify", inputs=texts, top_k=1)
    for row, own, result in zip(rows[1:], given[1:], expected, strict=False):
        assert row[:3] == own
        if result["status"] == "ok":
            kept = [result["label"], result["score"], result["truncated"], result["token_count"]]
            assert [row[3], float(row[4]), json.loads(row[7]), int(row[8])] == kept
            assert row[5:7] == ["ok", ""]
        else:
            assert row[3:6] == ["", "", "error"]
            assert row[6].startswith("text_empty: ")
    assert rows[-2] == [
        "1",
        "too",
        "many",
        "",
        "",
        "error",
        "fields_uneven: 4 fields where the first row has 3",
        "",
        "",
        "fields",
    ]
    assert rows[-1][0] == "short"
    assert len(rows) == len(texts) + 3


def test_tables_are_read_and_written_as_python_does(browser, server):
    """Any fields at all, in any of the styles; seeded, so that a failure comes back."""
    letters = random.Random(0)
    styles = list(itertools.product([",", ";", "\t"], ["\r\n", "\n"]))
    tables = []
    for delimiter, newline in styles * 20:
        width = letters.randint(2, 5)
        of = 'ab",;\t é😀' + newline  # Python does not quote a \r where lines end otherwise
        fields = ["".join(letters.choices(of, k=letters.randint(0, 6))) for _ in range(5 * width)]
        rows = [[f"h{i}" for i in range(width)], *(fields[i * width :][:width] for i in range(5))]
        written = io.StringIO()
        csv.writer(written, delimiter=delimiter, lineterminator=newline).writerows(rows)
        tables.append((written.getvalue(), rows, delimiter, newline))
    with opened(browser, server) as tab:
        both = """async (texts) => { const { parse, format } = await import('/web/csv.js');
            return texts.map(parse).map((t) => [t, format(t.rows.map((row) => row.fields), t)]); }"""
        read = tab.evaluate(both, [text for text, *_ in tables])
        for (text, rows, delimiter, newline), (table, again) in zip(tables, read, strict=True):
            assert [row["fields"] for row in table["rows"]] == rows, text
            assert [row["flaw"] for row in table["rows"]] == [None] * len(rows)
            assert (table["delimiter"], table["newline"]) == (delimiter, newline)
            assert list(csv.reader(io.StringIO(again, newline=""), delimiter=delimiter)) == rows
        broken = ['a,b\n"x"y,1\n', 'a,b\n1,2\n"never\nclosed', "a\n\n\nb"]
        (late, _), (open_, _), (blank, _) = tab.evaluate(both, broken)
        assert late["rows"][1]["flaw"].startswith("quote_misplaced")
        assert open_["rows"][2] == {
            "fields": ["never\nclosed"],
            "line": 3,
            "flaw": "quote_open: its last quote is never closed",
        }
        assert (blank["blank"], [row["line"] for row in blank["rows"]]) == (2, [1, 4])


def test_a_file_that_cannot_be_read_is_said_to_be(browser, server, tmp_path):
    odd = {"not in UTF-8": b"text\n\xff\xfe", "no rows": b"", "at most 5,000,000": b"x" * 5_000_001}
    with opened(browser, server, view="file") as tab:
        for i, (words, content) in enumerate(odd.items()):
            (tmp_path / f"{i}.csv").write_bytes(content)
            tab.set_input_files("#upload", tmp_path / f"{i}.csv")
            expect(tab.locator("#file-notice")).to_contain_text(words)
            expect(tab.locator("#job")).to_be_empty()


def test_a_damaged_row_of_names_is_reported_as_any_other(browser, server, tmp_path):
    odd = {"quote_misplaced": '"id"x,text\n1,the box\n', "quote_open": 'id,"text\n1,the box\n'}
    with opened(browser, server, view="file") as tab:
        for flaw, content in odd.items():
            (tmp_path / f"{flaw}.csv").write_text(content)
            tab.set_input_files("#upload", tmp_path / f"{flaw}.csv")
            expect(tab.locator("#job .notice")).to_contain_text(f"names the columns is damaged: line 1: {flaw}")


def test_a_file_goes_on_where_an_error_stopped_it(browser, server, tmp_path):
    rows = write_csv(tmp_path / "rows.csv", [(f"the box {i}", "x") for i in range(100)])
    busy = [
        ApiError(503, "not_ready", "the server is about to end"),
        ApiError(429, "queue_full", "busy", headers=(("retry-after", "1"),)),
    ]
    asked = []

    def answer(route: Any) -> None:
        asked.append(len(route.request.post_data_json["inputs"]))
        if len(asked) > 1 and busy:
            answering(busy.pop(0))(route)
        else:
            route.continue_()

    with opened(browser, server, view="file", faults="status of (429|503)") as tab:
        tab.route("**/v1/classify", answer)
        tab.set_input_files("#upload", rows)
        tab.get_by_role("button", name="Label 100 rows").click()
        expect(tab.locator("#job .notice")).to_contain_text(
            "The service is not ready: the server is about to end. 36 rows left to label."
        )
        go_on = tab.get_by_role("button", name="Go on")
        expect(go_on).to_be_focused()
        go_on.click()
        expect(tab.get_by_role("button", name="Stop")).to_be_focused()
        expect(tab.locator(".progress")).to_contain_text("The service is busy. It is asked again in 1 second.")
        expect(tab.locator(".done")).to_contain_text("100 rows labelled.")
        expect(tab.get_by_role("button", name="Download as CSV")).to_be_focused()
    assert asked == [64, 36, 36, 36]


def test_the_model_is_in_view(browser, server, client):
    info = client.get("/v1/info").json()
    with opened(browser, server, view="model") as tab:
        settled(tab, 4)
        assert tab.locator("h1").inner_text() == info["name"]
        facts = tab.locator("#facts").inner_text()
        for fact in (info["version"], info["precision"], str(len(info["labels"]))):
            assert fact in facts
        assert tab.locator("#model .names li").all_inner_texts() == info["labels"]
        card = tab.locator("#card").inner_text()
        assert f"{100 * info['metrics']['test']['accuracy']:.1f}" in card
        assert "masked words" not in card, "nothing is known of this base"
        assert set(info) == set(InfoAnswer.model_fields)
        for base in ("minilm", "sentence-transformers/all-MiniLM-L6-v2"):
            tab.evaluate("async (info) => (await import('/web/model.js')).showModel(info)", info | {"base_model": base})
            expect(tab.locator("#card")).to_contain_text(
                "distilled into a small model, which was then trained further on pairs of sentences"
            )


def test_a_model_of_several_labels_shows_those_that_it_withholds(browser, multi_label_client):
    url = str(multi_label_client.base_url).rstrip("/")
    candidates = ["refund my money please", "the box is late", "love", "i", "page", "not in time", "the parcel app"]
    labels = {
        item["label"]: text
        for text, item in zip(candidates, ask(multi_label_client, "classify", inputs=candidates), strict=True)
    }
    texts = list(labels.values())
    results = ask(multi_label_client, "classify", inputs=texts)
    everything = ask(multi_label_client, "classify", inputs=texts, threshold=0)
    assert {result["label"] for result in results} > {None}, "the test needs one without and one with a label"
    with opened(browser, url) as tab:
        write(tab, *texts)
        for card, result, all_ in zip(tab.locator("#cards article").all(), results, everything, strict=True):
            assert card.locator("h3 .label").all_inner_texts() == (
                [row["label"] for row in result["scores"]] or ["no label"]
            )
            assert card.locator(".scores .name").all_inner_texts() == [row["label"] for row in all_["scores"]]
            assert card.locator(".scores .given .name").all_inner_texts() == [row["label"] for row in result["scores"]]
            assert card.get_by_text("below its threshold").count() == len(all_["scores"]) - len(result["scores"])
        explained(tab)
        assert "any number of 3 labels" in tab.locator("#model-claim").inner_text()


def test_a_key_is_asked_for_kept_in_memory_and_forgotten(browser, guarded):
    with opened(browser, guarded[0], faults="status of 401") as tab:
        dialog = tab.get_by_role("dialog", name="This service needs an API key")
        field = tab.get_by_label("API key", exact=True)
        expect(field).to_be_focused()
        tab.get_by_role("button", name="Cancel").click()
        expect(tab.locator("#composer-notice")).to_contain_text("The service needs an API key.")
        tab.fill("#sentences", "the box")
        expect(tab.locator("#composer-notice")).to_contain_text("The service needs an API key.")
        expect(dialog).to_be_hidden()

        tab.get_by_role("button", name="Enter the key").click()
        field.fill("not-the-key-but-long-enough")
        tab.keyboard.press("Enter")
        expect(tab.locator("#key-refused")).to_have_text("That key does not open the service.")
        assert flaws(tab) == []
        field.fill(f"{KEY[:8]}\u200b{KEY[8:]}")
        tab.keyboard.press("Enter")
        expect(tab.locator("#key-refused")).to_contain_text("maybe one that is not seen")
        field.fill(KEY)
        tab.keyboard.press("Enter")
        expect(tab.locator("#cards article")).to_have_count(1)
        kept = """[location.href, document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage),
            document.documentElement.outerHTML, ...Array.from(document.querySelectorAll('input'), (i) => i.value)]"""
        assert not [place for place in tab.evaluate(kept) if KEY in place]

        tab.click("#tab-code")
        for name, command in (("curl", ["bash", "-c"]), ("python", [sys.executable, "-c"])):
            text = tab.locator(f"#{name}").text_content()
            assert KEY not in text
            done = subprocess.run(
                [*command, text], capture_output=True, check=True, env=os.environ | {"BERTRAND_API_KEY": KEY}
            )
            assert '"status": "ok"' in done.stdout.decode().replace('":"', '": "')

        tab.get_by_role("button", name="Forget the API key").click()
        expect(tab.locator("#key-forget")).to_be_hidden()
        tab.fill("#sentences", "my card")
        expect(field).to_be_focused()
        expect(field).to_have_value("")


def test_whoever_tries_again_is_asked_for_the_key_again(browser, server, tmp_path):
    """A key that was not at hand may be now; nobody is asked unless by what they press."""
    no_key = answering(ApiError(401, "key_invalid", "the request has no key"))
    rows = write_csv(tmp_path / "rows.csv", [(text, "x") for text in BANK])
    with opened(browser, server, faults="status of 401") as tab:
        settled(tab, 4)
        explained(tab)

        def decline_then_give(route: str, ask: Callable[[], None], notice: str, again: str) -> None:
            tab.route(f"**/v1/{route}", no_key, times=2)
            ask()
            tab.get_by_role("button", name="Cancel").click()
            expect(tab.locator(notice)).to_contain_text("The service needs an API key.")
            tab.locator(notice).get_by_role("button", name=again).click()
            tab.get_by_label("API key", exact=True).fill(KEY)
            tab.keyboard.press("Enter")
            expect(tab.locator(notice)).to_have_count(0)
            tab.get_by_role("button", name="Forget the API key").click()

        decline_then_give("explain", lambda: write(tab, "the box"), "#cards .notice", "Try again")
        explained(tab)
        decline_then_give("types", lambda: tab.click("#tab-types"), "#types-notice .notice", "Try again")
        expect(tab.locator(".finding")).to_be_visible()
        tab.click("#tab-file")
        tab.set_input_files("#upload", rows)
        label = tab.get_by_role("button", name="Label 3 rows")
        decline_then_give("classify", label.click, "#job .notice", "Go on")
        expect(tab.locator(".done")).to_contain_text("3 rows labelled.")


def test_limits_and_many_labels(browser, guarded, tmp_path):
    """What a service takes is no more than it says: texts of a request, characters of a text, bytes of a body."""
    rows = write_csv(
        tmp_path / "rows.csv",
        [*((f"the box {i}", "x") for i in range(7)), ("é" * 400, "x"), ("😀" * 1000, "x"), ("the box", "x")],
    )
    with opened(browser, guarded[0], faults="status of (401|413|422)") as tab:
        tab.get_by_label("API key", exact=True).fill(KEY)
        tab.keyboard.press("Enter")
        settled(tab, 4)  # in two requests
        tab.click("#tab-code")
        for route, length, said in (("classify", 3, "first 3 of 4"), ("explain", 1, "first of 4")):
            tab.select_option("#route", route)
            (sent,) = re.findall(r"'JSON'\n(.*)\nJSON", tab.locator("#curl").text_content(), re.DOTALL)
            assert len(json.loads(sent)["inputs"]) == length
            expect(tab.locator("#code-part")).to_contain_text(f"They hold the {said} sentences")
        tab.select_option("#route", "types")
        expect(tab.locator("#code-part")).to_be_empty()
        tab.click("#tab-labels")
        write(tab, "the box", "x" * 301)
        first, second = tab.locator("#cards article").all()
        assert first.locator(".scores li").count() == 5
        first.get_by_role("button", name="Show all 77").click()
        assert first.locator(".scores li").count() == 77
        expect(first.get_by_role("button", name="Show fewer")).to_be_focused()
        expect(second).to_contain_text("no answer")
        expect(second).to_contain_text("300")
        write(tab, "x" * 301)
        expect(tab.locator("#cards article")).to_contain_text("no answer")
        tab.fill("#sentences", "x" * 3000)
        expect(tab.locator("#composer-notice")).to_contain_text("That is too much for one request")
        write(tab, "the card " * 33)
        expect(tab.locator(".unread")).to_have_text(re.compile(r"\d+ more characters not read"))
        assert "Nothing was measured" in tab.locator("#model-claim").inner_text()

        asked = []
        tab.on(
            "request",
            lambda request: request.url.endswith("/classify") and asked.append(len(request.post_data_json["inputs"])),
        )
        tab.click("#tab-file")
        tab.set_input_files("#upload", rows)
        tab.get_by_role("button", name="Label 10 rows").click()
        expect(tab.locator(".done")).to_contain_text("8 rows labelled, 2 without an answer.")
        assert max(asked) <= 3
        assert sum(asked) == 10


def test_another_model_is_taken_note_of(browser, guarded, tmp_path):
    """What was read by the one is read again by the other: no answer of the old model stays beside its version."""
    url, current = guarded
    with opened(browser, url, faults="status of 401") as tab:
        tab.get_by_label("API key", exact=True).fill(KEY)
        tab.keyboard.press("Enter")
        write(tab, "the box", "my card")
        before = tab.locator("article h3 .score").all_inner_texts()
        version = manifest_of(current)["version"]
        expect(tab.locator("#facts")).to_contain_text(version)
        other = with_another_temperature(current.resolve(), tmp_path / "other")
        (tmp_path / "link").symlink_to(other)
        (tmp_path / "link").replace(current)
        asked = {"headers": {"authorization": f"Bearer {KEY}"}, "timeout": 30}
        until(lambda: httpx.get(f"{url}/v1/info", **asked).json()["version"] != version)
        write(tab, "the box", "my card", "late")
        expect(tab.locator("#facts")).to_contain_text(manifest_of(other)["version"])
        after = tab.locator("article h3 .score").all_inner_texts()
        assert all(one != two for one, two in zip(before, after, strict=False))


@pytest.mark.parametrize(("route", "view", "shown"), [("explain", "labels", ".about"), ("types", "types", ".finding")])
def test_answers_of_two_models_are_not_shown_together(browser, server, route, view, shown):
    """Vectors of one beside type rows or importance of another would mean nothing: the sentences are read again."""

    def of_another_model(held: Any) -> None:
        answer = held.fetch().json()
        answer["model"]["version"] = "another"
        held.fulfill(json=answer)

    read: list[str] = []
    with opened(browser, server, view="file") as tab:
        tab.on("request", lambda request: request.url.endswith(("/analyze", "/info")) and read.append(request.url))
        write(tab, *BANK)
        read.clear()
        tab.route(f"**/v1/{route}", of_another_model, times=1)
        tab.click(f"#tab-{view}")
        expect(tab.locator(shown).first).to_have_text(re.compile("[a-z]"))
    assert sorted(read) == [f"{server}/v1/analyze", f"{server}/v1/info"]


def test_errors_are_told_where_they_belong(browser, server):
    with opened(browser, server, faults="status of (429|503|504|500)|ERR_INTERNET_DISCONNECTED") as tab:
        settled(tab, 4)
        notice = tab.locator("#composer-notice")
        tab.context.set_offline(True)
        tab.fill("#sentences", "the box")
        expect(notice).to_contain_text("The service gives no answer. Is it running, and is the network up?")
        tab.context.set_offline(False)
        notice.get_by_role("button", name="Try again").click()
        settled(tab, 1)
        expect(notice).to_be_empty()
        expect(tab.locator("#sentences")).to_be_focused()

        tab.route("**/v1/analyze", lambda route: route.fulfill(body='{"results": ['), times=1)
        tab.fill("#sentences", "the card")
        expect(notice).to_contain_text("The service gives no answer.")
        notice.get_by_role("button", name="Try again").click()
        settled(tab, 1)

        errors = [
            (
                ApiError(503, "not_ready", "the server is about to end"),
                "The service is not ready: the server is about to end.",
            ),
            (ApiError(504, "deadline_exceeded", "too late"), "The service did not get to it in time."),
            (ApiError(500, "internal", "an error of the server's own"), "An error of the server's own. (500 internal)"),
            (ApiError(429, "queue_full", "busy", headers=(("retry-after", "1"),)), "It is asked again in 1 second."),
        ]
        for i, (error, words) in enumerate(errors):
            tab.route("**/v1/analyze", answering(error), times=1)
            tab.fill("#sentences", f"the box {i}")
            expect(notice).to_contain_text(words)
        settled(tab, 1)
        expect(notice).to_be_empty()

        tab.route("**/v1/explain", answering(errors[0][0]), times=1)
        write(tab, "my card")
        expect(tab.locator("article .notice")).to_contain_text("The service is not ready")
        tab.locator("article .notice").get_by_role("button", name="Try again").click()
        explained(tab)
        expect(tab.get_by_label("Importance for")).to_be_focused()
        tab.route("**/v1/types", answering(errors[0][0]), times=2)
        tab.click("#tab-types")
        expect(tab.locator("#types-notice")).to_contain_text("The service is not ready")
        again = tab.locator("#types-notice").get_by_role("button", name="Try again")
        with tab.expect_response("**/v1/types"):
            again.click()
        expect(again).to_be_focused()
        again.click()
        expect(tab.locator("#types-notice")).to_be_empty()
        expect(tab.locator("#word")).to_be_focused()


def test_a_word_is_looked_up_again_once_the_service_has_time(browser, server):
    busy = ApiError(429, "queue_full", "busy", headers=(("retry-after", "1"),))
    with opened(browser, server, faults="status of 429") as tab:
        settled(tab, 4)
        tab.route("**/v1/types", answering(busy), times=1)
        tab.click("#tab-types")
        expect(tab.locator("#types-notice")).to_contain_text("It is asked again in 1 second.")
        expect(tab.locator(".finding")).to_contain_text("“bank”")
        expect(tab.locator("#types-notice")).to_be_empty()


def test_no_word_is_looked_up_where_there_is_none(browser, server):
    with opened(browser, server) as tab:
        settled(tab, 4)
        tab.route("**/v1/types", lambda _: None)
        with tab.expect_request("**/v1/types"):
            tab.click("#tab-types")
        expect(tab.locator("#senses")).to_have_attribute("aria-busy", "true")
        tab.fill("#word", "")
        tab.keyboard.press("Enter")
        expect(tab.locator("#senses")).to_contain_text("Type a word of the sentences")
        expect(tab.locator("#senses")).not_to_have_attribute("aria-busy", "true")


def test_nothing_and_too_much(browser, server):
    with opened(browser, server, viewport=NARROW) as tab:
        settled(tab, 4)
        tab.fill("#sentences", " \n\t\n")
        expect(tab.locator("#reading")).to_have_text("Nothing to read yet.")
        expect(tab.locator("#cards")).to_have_text("Type a sentence, or choose an example.")
        tab.click("#tab-compare")
        expect(tab.locator("#comparison")).to_have_text("Type two sentences, one a line.")
        tab.fill("#sentences", "\n".join(f"the box {i}" for i in range(60)))
        expect(tab.locator("#reading")).to_contain_text("The first 50 of 60 are read here")
        write(tab, "x" * 3000, "<img src=x onerror=alert(1)> " * 20)
        for view in VIEWS:
            tab.click(f"#tab-{view}")
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), view


def test_a_sentence_runs_as_its_script_does(browser, server):
    with opened(browser, server) as tab:
        write(tab, "איפה הכרטיס שלי?", "my card is late")
        direction = "(field) => getComputedStyle(field).direction"
        assert tab.locator("#sentences").evaluate(direction) == "rtl"
        for card, forward, back in zip(tab.locator("article").all(), (-1, 1), ("ArrowRight", "ArrowLeft"), strict=True):
            chips = card.locator("button.token")
            lefts = [chip.bounding_box()["x"] for chip in chips.all()]
            assert lefts == sorted(lefts, reverse=forward < 0)
            assert chips.locator("small").first.evaluate(direction) == "ltr", "a sign stands before its figure"
            chips.nth(1).focus()
            tab.keyboard.press(back)
            expect(chips.nth(0)).to_be_focused()


def test_text_may_be_dropped_where_a_file_may_not(browser, server):
    """A file beside its place would be opened over the page; a text is for the field."""
    drop = """(field, kind) => { const dataTransfer = new DataTransfer();
        if (kind === "text") dataTransfer.setData("text/plain", "the box");
        else dataTransfer.items.add(new File(["text"], "rows.csv"));
        return ["dragover", "drop"].map((name) =>
            field.dispatchEvent(new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true }))); }"""
    with opened(browser, server) as tab:
        field = tab.locator("#sentences")
        assert field.evaluate(drop, "text") == [True, True], "the browser may do with it what it does"
        assert field.evaluate(drop, "file") == [False, False]


def test_the_page_is_used_by_keyboard_alone(browser, server):
    with opened(browser, server) as tab:
        settled(tab, 4)
        press = tab.keyboard.press
        press("Tab")
        expect(tab.get_by_text("Skip to the sentences")).to_be_focused()
        press("Enter")
        expect(tab.locator("#sentences")).to_be_focused()
        press("Control+A")
        tab.keyboard.type("the card is late\nmy card")
        settled(tab, 2)
        for _ in range(tab.locator("#examples button").count() + 1):
            press("Tab")
        expect(tab.get_by_role("tab", name="Labels")).to_be_focused()
        press("ArrowLeft")
        expect(tab.get_by_role("tab", name="Model")).to_be_focused()
        expect(tab.get_by_role("tabpanel", name="Model")).to_be_visible()
        press("Home")
        expect(tab.get_by_role("tabpanel", name="Labels")).to_be_visible()
        press("Tab")
        expect(tab.locator("#labels")).to_be_focused()
        press("Tab")
        expect(tab.get_by_role("radio", name="importance")).to_be_focused()
        press("Tab")
        expect(tab.locator("button.token", has_text="the")).to_be_focused()
        press("ArrowRight")
        expect(tab.locator("button.token", has_text="card").first).to_be_focused()
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        press("Enter")
        expect(tab.get_by_role("tab", name="Types and tokens")).to_be_focused()
        expect(tab.locator(".finding")).to_contain_text("“card” has one type row, the same at both places")
        press("Tab")
        press("Tab")
        expect(tab.locator("#word")).to_be_focused()
        press("Control+A")
        tab.keyboard.type("late")
        press("Enter")
        expect(tab.locator(".finding")).to_contain_text("“late” has one type row: cosine 1.000.")
        tab.locator("#tab-file").focus()
        press("Enter")
        press("Tab")
        press("Tab")
        expect(tab.get_by_role("button", name="CSV file")).to_be_focused()


def test_a_word_that_is_pressed_keeps_the_focus(browser, server):
    with opened(browser, server, view="types") as tab:
        write(tab, *BANK)
        word = tab.locator("#words button", has_text="card")
        expect(word).to_have_attribute("aria-pressed", "false")
        word.click()
        expect(tab.locator(".finding")).to_contain_text("“card”")
        expect(word).to_have_attribute("aria-pressed", "true")
        expect(word).to_be_focused()


def test_a_screen_reader_hears_the_labels_once(browser, server):
    with opened(browser, server) as tab:
        settled(tab, 4)
        told = tab.get_by_role("status")
        tab.evaluate(
            "() => { window.told = 0; new MutationObserver(() => window.told++).observe("
            "document.getElementById('told'), { childList: true }); }"
        )
        write(tab, "thank you, great app")
        expect(told).to_have_text(re.compile(r"^praise \d\d\.\d\s%\.$"))
        tab.locator("#sentences").press_sequentially("\n")
        settled(tab, 1)
        assert tab.evaluate("window.told") == 1


def test_a_screen_reader_hears_what_was_chosen(browser, server, tmp_path):
    rows = write_csv(tmp_path / "rows.csv", [("the box", "x"), ("", "x"), ("my card", "x")])
    with opened(browser, server, view="types", permissions=["clipboard-write"]) as tab:
        told = tab.get_by_role("status")
        write(tab, *BANK)
        tab.locator("#words button", has_text="card").click()
        expect(told).to_have_text(re.compile("^“card” has one type row, the same at all 3 places"))

        tab.click("#tab-compare")
        tab.get_by_label("Across", exact=True).select_option("2")
        expect(told).to_have_text(re.compile(r"^Sentences 1 and 3: cosine 0\.\d+, of their tokens 0\.\d+\.$"))
        figures_ = tab.locator("#comparison .tiles dd").all_inner_texts()
        assert [text.split()[0] for text in figures_] == re.findall(r"0\.\d+", told.inner_text())
        tab.get_by_role("button", name="Swap").click()
        expect(told).to_have_text(re.compile("^Sentences 3 and 1"))

        tab.click("#tab-code")
        for name in ("curl", "Python"):
            tab.get_by_role("button", name=f"Copy as {name}").click()
            expect(told).to_have_text(f"{name} is copied.")

        tab.click("#tab-file")
        tab.set_input_files("#upload", rows)
        tab.get_by_role("button", name="Label 3 rows").click()
        expect(told).to_have_text("2 rows labelled, 1 without an answer.")


def test_what_is_typed_stays_out_of_the_address(browser, server):
    with opened(browser, server) as tab:
        write(tab, "the secret order")
        tab.click("#tab-compare")
        assert tab.url == f"{server}/#compare"
        tab.click("#tab-labels")
        assert tab.url == f"{server}/"
        assert tab.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
