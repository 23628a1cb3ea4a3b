"""A candidate beside the model: what it says is counted, and nothing else changes."""

import asyncio
import json
import os
import shutil
import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
import onnxruntime as ort
import psutil
import pytest

from inference import Classifier, InputError
from inference.encoder import Encoded
from service import shadow
from service.answers import Call
from service.metrics import Metrics
from service.models import Models
from service.routes import ROUTES
from service.schema import TextsRequest
from service.settings import Settings
from service.shadow import Answered, compare
from service.wire import to_json
from tests.load import Load
from tests.service.test_admission import Held
from tests.service.test_lifecycle import metric, running, switch
from tests.support import manifest_of, run_command, serving, signed_again, until

TEXTS = ["refund the order please", "where to login", "we love the app", "?", "money back " * 40, "it is the app"]
ALL = {"BERTRAND_SHADOW_RATIO": "1"}
OUTCOMES = ("agreed", "differed", "failed", "dropped")


@pytest.fixture(scope="module")
def warmer(model_folder, tmp_path_factory):
    """The tiny model at another temperature: the same labels, and it is less sure of them."""
    return changed(model_folder, tmp_path_factory.mktemp("warmer") / "warmer", name="warmer", temperature=3.0)


@pytest.fixture(scope="module")
def renamed(model_folder, tmp_path_factory):
    """The tiny model with other labels."""
    return changed(model_folder, tmp_path_factory.mktemp("renamed") / "renamed", name="renamed", labels=("a", "b", "c"))


def changed(model, target, **values):
    return signed_again(model, target, lambda _: None, **values)


def outcomes(url):
    return {name: metric(url, f'bertrand_shadow_items_total{{outcome="{name}"}}') for name in OUTCOMES}


def seen(url):
    return sum(outcomes(url).values())


def difference(url):
    return metric(url, "bertrand_shadow_score_difference_sum"), metric(url, "bertrand_shadow_score_difference_count")


def serves_as_candidate(url, folder):
    manifest = manifest_of(folder)
    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if "bertrand_shadow_model_info{" in line]
    return {line for line in lines if line.endswith(" 1.0")} == {
        line for line in lines if f'name="{manifest["name"]}"' in line and f'version="{manifest["version"]}"' in line
    }


def answers(url):
    """What a server says, to the last byte, on every route that labels, and on one that does not."""
    asked = [("/v1/classify", {"inputs": text}) for text in [*TEXTS, ["", "login"]]]
    asked += [("/v1/analyze", {"inputs": TEXTS[0], "top_k": 2}), ("/v1/embed", {"inputs": TEXTS[0]})]
    asked += [("/v1/classify", {"inputs": TEXTS[4], "truncate": "windows", "threshold": 0.9})]
    asked += [("/predict", {"inputs": TEXTS[1]}), ("/v1/classify", {"inputs": "", "raw_scores": True})]
    infer = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXTS[2]]}]}
    asked += [("/v2/models/tiny/infer", infer)]
    replies = [httpx.post(f"{url}{path}", json=body, headers={"x-request-id": "same"}) for path, body in asked]
    return [(reply.status_code, reply.headers["x-request-id"], reply.content) for reply in replies]


LABELLED = len(TEXTS) + 5  # texts of `answers` that were given labels


def test_the_life_of_a_candidate(model_folder, warmer, renamed, server, tmp_path):
    """It is compared, switched and refused as the link says, and no answer changes by a byte."""
    link = tmp_path / "candidate"
    link.symlink_to(model_folder)
    expected = answers(server)
    assert metric(server, 'bertrand_shadow_items_total{outcome="agreed"}') is None

    log = tmp_path / "log"
    with serving(model_folder, log=log, BERTRAND_SHADOW_MODEL=str(link), **ALL) as url:
        assert outcomes(url) == dict.fromkeys(OUTCOMES, 0)
        assert serves_as_candidate(url, model_folder)

        assert answers(url) == expected
        until(lambda: seen(url) == LABELLED)
        assert outcomes(url)["agreed"] == LABELLED, "a model agrees with itself"
        total, count = difference(url)
        assert total < 1e-5
        assert count > LABELLED - 2, "the text of a high threshold may have no label"

        switch(link, warmer)
        until(lambda: serves_as_candidate(url, warmer))
        assert answers(url) == expected
        until(lambda: seen(url) == 2 * LABELLED)
        assert outcomes(url)["agreed"] > 2 * LABELLED - 2, "the one that asked for 0.9 may differ"
        assert difference(url)[0] > 0.1

        before = outcomes(url)
        switch(link, renamed)
        until(lambda: serves_as_candidate(url, renamed))
        assert answers(url) == expected
        until(lambda: seen(url) == 3 * LABELLED)
        assert outcomes(url)["differed"] > before["differed"] + LABELLED - 2

        broken = shutil.copytree(warmer, tmp_path / "broken")
        (broken / "model.onnx").write_bytes(b"")
        (broken / "model.int8.onnx").write_bytes(b"")
        switch(link, broken)
        until(lambda: "the new candidate is refused, renamed " in log.read_text())
        assert serves_as_candidate(url, renamed)
        assert answers(url) == expected
        until(lambda: seen(url) == 4 * LABELLED)
        assert metric(url, 'bertrand_reloads_total{outcome="refused"}') == 0, "of the model nothing was refused"
        assert metric(url, 'bertrand_predictions_total{label="a"}') is None
    for text in TEXTS[:3]:
        assert text not in log.read_text()


def test_two_workers_count_together_and_each_takes_up_the_candidate(model_folder, warmer, tmp_path):
    link = tmp_path / "candidate"
    link.symlink_to(warmer)
    with running(model_folder, "--workers", "2", BERTRAND_SHADOW_MODEL=str(link), **ALL) as (url, process):
        for i in range(30):
            httpx.post(f"{url}/v1/classify", json={"inputs": [TEXTS[0]] * (1 + i % 3)})
        until(lambda: outcomes(url) == {"agreed": 60, "differed": 0, "failed": 0, "dropped": 0})
        assert difference(url)[1] == 60

        switch(link, model_folder)
        until(lambda: serves_as_candidate(url, model_folder))
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_more_than_can_be_compared_is_dropped_and_answers_keep_coming(model_folder):
    texts = [f"{text} {i}" for i in range(200) for text in TEXTS[:3]]
    with running(model_folder, BERTRAND_SHADOW_MODEL=str(model_folder), **ALL) as (url, process):
        with Load(url, callers=6, texts=texts) as load:
            until(lambda: outcomes(url)["dropped"] > 0)
            load.wait_for(12)
        process.terminate()  # nor does the end wait for what was not compared
        assert process.wait(timeout=30) == 0

    assert load.failures == []


@pytest.mark.parametrize("damage", ["missing", "altered", "cannot compute"])
def test_a_candidate_that_cannot_be_loaded_stops_the_start_and_is_named(model_folder, tmp_path, damage):
    candidate = tmp_path / "candidate"
    if damage == "altered":
        shutil.copytree(model_folder, candidate)
        for graph in ("model.onnx", "model.int8.onnx"):
            (candidate / graph).write_bytes(b"")
    if damage == "cannot compute":
        changed(model_folder, candidate, max_tokens=500)  # the network has 64 positions
    if damage != "cannot compute":
        done = run_command("serve", model_folder, BERTRAND_SHADOW_MODEL=str(candidate))
        assert done.returncode == 2
        (error,) = done.stderr.strip().splitlines()
        assert f"BERTRAND_SHADOW_MODEL: {candidate}" in error
    settings = Settings(model=str(model_folder), shadow_model=str(candidate))
    with pytest.raises(InputError, match=f"BERTRAND_SHADOW_MODEL: {candidate}"):
        Models(settings, Metrics(ROUTES))


def test_a_relative_path_of_a_candidate_is_where_the_command_was_given(model_folder, tmp_path, monkeypatch):
    """The service itself runs elsewhere."""
    (tmp_path / "candidate").symlink_to(model_folder)
    monkeypatch.chdir(tmp_path)

    settings = Settings.from_environment({"BERTRAND_SHADOW_MODEL": "candidate"})

    assert settings.shadow_model == str(tmp_path / "candidate")


class Worker:
    """The models and metrics of a worker, without a server around them."""

    def __init__(self, model, candidate, **settings):
        self.metrics = Metrics(ROUTES)
        self.models = Models(
            Settings(model=str(model), shadow_model=str(candidate), **{"shadow_ratio": 1.0, **settings}), self.metrics
        )

    def ask(self, texts, **options):
        request = TextsRequest(inputs=texts, **options)
        answer = asyncio.run(self.models.current.classify(request, Call()))
        return json.loads(to_json(answer))["results"]

    def outcomes(self):
        return {name: self.value(f'shadow_items_total{{outcome="{name}"}}') for name in OUTCOMES}

    def value(self, name):
        lines = self.metrics.render().decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"bertrand_{name} "))

    def compared(self, count):
        """Wait until so many texts were compared or failed; return what became of them."""
        until(lambda: sum(self.outcomes().values()) - self.outcomes()["dropped"] == count)
        return {name: value for name, value in self.outcomes().items() if value}


@contextmanager
def worker(*arguments, **settings):
    made = Worker(*arguments, **settings)
    try:
        yield made
    finally:
        made.models.close()


def test_nothing_is_compared_while_the_model_is_busy_and_the_newest_texts_are_kept(model_folder):
    """A burst costs what is oldest: what waits is bounded in texts and in characters."""
    with worker(model_folder, model_folder, threads=1) as at:
        held = at.models.current.batcher._runner = Held(at.models.current.classifier.engine)
        asking = threading.Thread(target=at.ask, args=("login",))
        asking.start()
        until(lambda: not at.models.current.batcher.at_rest)
        offer = at.models.current.shadow.offer
        for i in range(shadow.MOST_TEXTS + 500):
            offer(Answered(f"login {i}", ("login",), 0.5))
        assert at.outcomes() == {"agreed": 0, "differed": 0, "failed": 0, "dropped": 500}

        long = Answered("login " * (shadow.MOST_CHARACTERS // 12 + 1), ("login",), 0.5)
        offer(long)
        assert at.outcomes()["dropped"] > 500
        offer(long)
        assert at.outcomes()["dropped"] == shadow.MOST_TEXTS + 501, "one of the two long texts, and all short ones"

        held.gate.set()
        asking.join()
        at.compared(2)  # the long one that stayed, and the one that was asked


def test_the_candidate_waits_until_there_is_a_model(model_folder, monkeypatch):
    """On a machine that is busy the model may be ready long after the candidate."""

    def slow(self, classifier):
        time.sleep(0.2)  # ten looks of the candidate's thread
        return make(self, classifier)

    make = Models._answers
    monkeypatch.setattr(Models, "_answers", slow)
    with worker(model_folder, model_folder) as at:
        at.ask("login")
        assert at.compared(1) == {"agreed": 1}


def test_an_error_outside_of_the_candidate_is_told_and_the_next_text_compared(model_folder, caplog):
    """A thread that ended in silence would look like a day on which nothing was asked."""
    with worker(model_folder, model_folder) as at:
        candidate = at.models.current.shadow
        at_rest, candidate._at_rest = candidate._at_rest, None  # not what can be called
        until(lambda: at.outcomes()["failed"] > 1)
        candidate._at_rest = at_rest
        at.ask("login")
        until(lambda: at.outcomes()["agreed"] == 1)
    (complaint,) = [record.getMessage() for record in caplog.records if "the candidate failed" in record.getMessage()]
    assert "TypeError" in complaint


def test_the_candidate_is_not_waited_for_at_the_end(model_folder):
    """Its pass is told to stop, and what waits is left."""
    with worker(model_folder, model_folder) as at:
        for _ in range(500):
            at.models.current.shadow.offer(Answered("login " * 30, ("login",), 0.5))
    assert not at.models._shadow._thread.is_alive()
    assert at.outcomes()["failed"] == 0


def test_long_texts_are_read_as_far_as_the_answer_was(model_folder):
    """A candidate that reads only the start of what was read whole would differ for that alone."""
    text = "money back " * 15 + "where to login password account " * 6
    with worker(model_folder, model_folder) as at:
        (whole,) = at.ask(text, truncate="windows")
        (start,) = at.ask(text)
        assert abs(whole["score"] - start["score"]) > 0.01
        assert at.compared(2) == {"agreed": 2}
        assert at.value("shadow_score_difference_sum") < 1e-5


def test_requests_have_their_threshold_and_count_of_the_candidate_too(multi_label_folder, tmp_path):
    """Of a model with several labels a text, agreeing is to give the same set of them."""
    stricter = changed(multi_label_folder, tmp_path / "stricter", thresholds=(0.999, 0.999, 0.999))
    sets = [
        [{label for label, _ in prediction.scores} for prediction in Classifier.load(folder).classify(TEXTS)]
        for folder in (multi_label_folder, stricter)
    ]
    differing = sum(one != other for one, other in zip(*sets, strict=True))
    assert 0 < differing < len(TEXTS)
    with worker(multi_label_folder, stricter) as at:
        at.ask(TEXTS)
        assert at.compared(len(TEXTS)) == {"agreed": len(TEXTS) - differing, "differed": differing}
    with worker(multi_label_folder, stricter) as at:
        given = at.ask(TEXTS, threshold=0.01)
        assert max(len(result["scores"]) for result in given) > 1
        at.ask(TEXTS, threshold=0.01, top_k=1)
        assert at.compared(2 * len(TEXTS)) == {"agreed": 2 * len(TEXTS)}


def test_a_text_without_tokens_for_the_candidate_has_failed(model_folder, tmp_path, caplog):
    """Its tokenizer may make nothing of a text that the model can read; the text is not told."""

    def forget(folder):
        from tokenizers import Tokenizer, normalizers

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("login", ""), tokenizer.normalizer])
        tokenizer.save(str(folder / "tokenizer.json"))

    forgetful = signed_again(model_folder, tmp_path / "forgetful", forget)
    with worker(model_folder, forgetful) as at:
        at.ask(["login", "login", "we love the app"])
        assert at.compared(3) == {"failed": 2, "agreed": 1}
    complaints = [record.getMessage() for record in caplog.records if "failed on a text" in record.getMessage()]
    assert len(complaints) == 1
    assert "login" not in complaints[0]


@pytest.fixture(scope="module")
def single(model_folder):
    return Classifier.load(model_folder)


@pytest.mark.parametrize(
    ("labels", "score", "options", "expected"),
    [
        (("login",), 0.5, {}, (True, 0.25)),
        (("praise",), 0.5, {}, (False, 0.375)),
        (("login", "praise"), 0.5, {}, (False, 0.25)),
        (("unheard of",), 0.5, {}, (False, 0.5)),
        ((), None, {}, (False, None)),
        ((), None, {"threshold": 0.8}, (True, None)),
        (("login",), 0.9, {"threshold": 0.8}, (False, 0.15)),
    ],
)
def test_what_agreeing_means(single, labels, score, options, expected):
    said = {"login": 0.75, "praise": 0.125, "refund": 0.125}
    scores = np.array([said[label] for label in single.labels], dtype=np.float32)

    agreed, by = compare(single, Answered("", labels, score, **options), scores)

    assert (agreed, by) == (expected[0], pytest.approx(expected[1]))


def test_a_text_is_sampled_by_chance_each_time_it_comes(model_folder):
    """Its copies too: where all of them were taken, or none, what is asked most would count too much or not at all."""
    with worker(model_folder, model_folder, shadow_ratio=0.25) as at:
        sample = at.models.current.shadow.sample
        assert abs(len(sample(40_000)) - 10_000) < 600  # seven standard deviations
        assert abs(sum(len(sample(1)) for _ in range(40_000)) - 10_000) < 600
    with worker(model_folder, model_folder) as at:
        assert at.models.current.shadow.sample(5) == [0, 1, 2, 3, 4]


def test_a_pass_that_is_told_to_stop_stops(single):
    options = ort.RunOptions()
    (text,) = single.encoder.encode(["login"])
    assert isinstance(text, Encoded)
    single.engine.run([text.ids], options=options)
    options.terminate = True
    with pytest.raises(Exception, match="terminate"):
        single.engine.run([text.ids], options=options)
    assert len(single.engine.run([text.ids])) == 1


def test_the_thread_of_the_candidate_is_the_last_to_run(model_folder):
    """At the server itself: one thread of each worker has the policy of those who only take what is left."""
    with running(model_folder, BERTRAND_SHADOW_MODEL=str(model_folder)) as (_, process):
        policies = [
            os.sched_getscheduler(thread.id)
            for child in psutil.Process(process.pid).children()
            for thread in child.threads()
        ]
    assert policies.count(os.SCHED_IDLE) == 1
