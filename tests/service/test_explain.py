"""What each token contributed to a label: the text without it, read by the same model."""

import asyncio
import math
import threading
from dataclasses import replace
from itertools import product

import bentoml
import numpy as np
import pytest

from inference.classifier import Classifier, sigmoid, softmax
from service.answers import Call
from service.errors import ApiError
from service.schema import ExplainRequest, TextsRequest
from tests.service.conftest import TEMPERATURE
from tests.support import until

TEXT = "please refund my order 🙂"


def post(client, **body):
    return client.post("/v1/explain", json=body)


def only(response):
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


# What is said


@pytest.mark.parametrize("model", ["", "multi_label_"])
@pytest.mark.parametrize("label", [None, "login"])
def test_importance_is_what_the_model_says_without_the_token(request, model, label):
    """Every left-out text is run again here, alone, at the level of its ids."""
    client, classifier = (request.getfixturevalue(f"{model}{name}") for name in ("client", "classifier"))
    (text,) = classifier.encoder.encode([TEXT])
    result = only(post(client, inputs=TEXT, label=label))

    assert list(result) == ["status", "token_count", "truncated", "label", "score", "tokens"]
    (whole,) = classifier.score([TEXT])
    place = int(whole.argmax()) if label is None else classifier.labels.index(label)
    assert result["label"] == classifier.labels[place]
    assert result["score"] == pytest.approx(whole[place], abs=1e-6)
    plain = client.post("/v1/tokenize", json={"inputs": TEXT}).json()["results"][0]
    assert (result["token_count"], result["truncated"]) == (len(text), False)
    for i, (token, seen) in enumerate(zip(result["tokens"], plain["tokens"], strict=True)):
        importance, weight = token.pop("importance"), token.pop("weight_of_evidence")
        assert token == seen
        if token["special"]:
            assert importance is weight is None
            continue
        (output,) = classifier.engine.run([np.concatenate([text.ids[:i], text.ids[i + 1 :]])])
        without = classifier.probabilities(output.logits)[place]
        assert importance == pytest.approx(whole[place] - without, abs=1e-6)
        odds = [math.log(p / (1 - p)) for p in (float(whole[place]), float(without))]
        assert weight == pytest.approx(odds[0] - odds[1], abs=1e-3)
    moved = [abs(token["importance"]) for token in only(post(client, inputs=TEXT))["tokens"] if not token["special"]]
    assert max(moved) > 0.01, "a model that nothing moves proves nothing"


def test_the_scores_are_those_of_classify(client):
    texts = [TEXT, "login", "thank you " * 40, "?"]
    explained = post(client, inputs=texts).json()
    classified = client.post("/v1/classify", json={"inputs": texts}).json()

    assert explained["model"] == classified["model"]
    for one, other in zip(explained["results"], classified["results"], strict=True):
        assert {name: one[name] for name in ("label", "token_count", "truncated")} == {
            name: other[name] for name in ("label", "token_count", "truncated")
        }
        assert one["score"] == pytest.approx(other["score"], abs=1e-7)


def test_a_model_that_abstains_has_its_most_probable_label_explained(multi_label_client, multi_label_classifier):
    """Why nothing was given is a question too."""
    words = ("the", "order", "please", "money", "login", "thank", "late", "?")
    text = next(text for text in map(" ".join, product(words, repeat=3)) if given_none(multi_label_classifier, text))
    result = only(post(multi_label_client, inputs=text))

    (scores,) = multi_label_classifier.score([text])
    assert result["label"] == multi_label_classifier.labels[int(scores.argmax())]


def given_none(classifier, text):
    return classifier.classify([text])[0].label is None


def test_a_text_of_one_token_is_held_against_no_text_at_all(client, classifier):
    result = only(post(client, inputs="login"))

    (text,) = classifier.encoder.encode(["login"])
    (nothing,) = classifier.engine.run([text.ids[[0, -1]]])
    without = classifier.probabilities(nothing.logits)[classifier.labels.index(result["label"])]
    assert [token["importance"] is None for token in result["tokens"]] == [True, False, True]
    assert result["tokens"][1]["importance"] == pytest.approx(result["score"] - without, abs=1e-6)


def test_a_text_that_is_cut_is_explained_as_far_as_it_was_read(client):
    long = "late " * 100

    result = only(post(client, inputs=long))
    assert (result["truncated"], result["token_count"], len(result["tokens"])) == (True, 32, 32)
    refused = post(client, inputs=[long, "late"], truncate=False).json()["results"]
    assert [each["status"] for each in refused] == ["error", "ok"]
    assert refused[0]["error"]["code"] == "text_too_long"


@pytest.mark.parametrize("problem_type", ["single_label", "multi_label"])
def test_log_odds_do_not_saturate(classifier, problem_type):
    """Both probabilities are 1 in float32; the odds are not the same."""
    manifest = replace(classifier.manifest, problem_type=problem_type, temperature=TEMPERATURE)
    model = Classifier(manifest, classifier.encoder, classifier.engine, "fp32")
    sure, surer = (np.array([z, 0, -1], dtype=np.float32) for z in (40, 60))

    assert model.probabilities(sure)[0] == model.probabilities(surer)[0] == 1
    change = model.log_odds(np.stack([surer, sure]), 0)
    assert change[0] - change[1] == pytest.approx(20 / TEMPERATURE)
    moderate = np.array([0.7, -0.2, 0.1], dtype=np.float32)
    p = (sigmoid if problem_type == "multi_label" else softmax)(moderate / np.float32(TEMPERATURE))
    np.testing.assert_allclose([model.log_odds(moderate, i) for i in range(3)], np.log(p / (1 - p)), atol=1e-5)


def test_the_only_label_of_a_model_has_no_odds(classifier):
    """Its probability is 1 whatever is left out: null in JSON, not an infinity that no parser reads."""
    from inference.importance import importance

    manifest = replace(classifier.manifest, labels=("all",))
    model = Classifier(manifest, classifier.encoder, classifier.engine, "fp32")
    (text,) = model.encoder.encode(["login please"])

    found = importance(model, text, np.array([[3], [2], [1]], dtype=np.float32))
    assert found.probability[1:-1].tolist() == [0, 0]
    assert np.isnan(found.weight_of_evidence).all()


# What is refused


def test_a_bad_text_fails_alone_and_a_single_one_its_request(client):
    many = post(client, inputs=["login", " "]).json()["results"]
    assert [result["status"] for result in many] == ["ok", "error"]
    alone = post(client, inputs="")
    assert (alone.status_code, alone.json()["error"]["code"]) == (422, "text_empty")
    assert post(client, inputs=[]).json()["results"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"label": "4711"}, "label"),
        ({"label": ""}, "label"),
        ({"label": 1}, "label"),
        ({"truncate": "windows"}, "truncate"),
        ({"top_k": 1}, "top_k"),
    ],
)
def test_what_is_not_known_is_refused(client, body, param):
    response = post(client, inputs="login", **body)

    assert response.status_code == 422
    assert response.json()["error"]["param"] == param
    assert "4711" not in response.text, "an error that repeats what was sent"


def test_what_explaining_would_take_is_known_before_it_runs(make_models):
    """A text of n tokens costs n x n: a request that alone is more than the queue holds is refused, and says why."""
    models, _ = make_models(max_queue_tokens=100)
    answers = models.current
    ran = []
    run = answers.batcher._runner.run
    answers.batcher._runner = Recorder(lambda batch, **rest: ran.extend(batch) or run(batch, **rest))

    def ask(*texts):
        return asyncio.run(answers.explain(ExplainRequest(inputs=list(texts)), Call()))["results"]

    fitting = "late " * 8  # 10 tokens, of which 8 are left out in turn
    assert [result["status"] for result in ask(fitting)] == ["ok"]
    assert sorted(map(len, ran)) == [9] * 8 + [10]
    assert [result["status"] for result in ask(fitting, "late " * 10)] == ["ok", "error"]
    ran.clear()
    with pytest.raises(ApiError, match=r"explaining 12 tokens takes 122, .* at most 100: shorten it") as alone:
        ask("late " * 10)
    assert (alone.value.status, alone.value.code) == (422, "text_too_long")
    with pytest.raises(
        ApiError, match=r"explaining these texts takes 164 tokens, .* at most 100 a request"
    ) as together:
        ask(fitting, fitting)
    assert (together.value.status, together.value.code) == (422, "inputs_too_many")
    assert ran == []


class Recorder:
    """What computes a batch, watched."""

    def __init__(self, run):
        self.run = run


def test_left_out_texts_join_the_queue_and_its_limit(make_models):
    """All of them at once or none: what does not fit beside what waits is a 429."""
    models, _ = make_models(max_queue_tokens=98)
    answers, gate = models.current, threading.Event()
    run = answers.batcher._runner.run
    answers.batcher._runner = Recorder(lambda batch, **rest: gate.wait(30) and run(batch, **rest))

    async def scenario():
        call = Call()
        running = asyncio.create_task(answers.classify(TextsRequest(inputs="login"), Call()))
        while not answers.batcher.longest_pass:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(answers.explain(ExplainRequest(inputs="late late late"), call))
        while not answers.batcher.waiting_tokens:
            await asyncio.sleep(0.001)
        waits = answers.batcher.waiting_tokens
        with pytest.raises(ApiError) as full:
            await answers.explain(ExplainRequest(inputs="late " * 8), Call())
        gate.set()
        await asyncio.gather(running, waiting)
        return waits, full.value, call

    waits, full, call = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert waits == 5 + 3 * 4
    assert (full.status, full.code, full.headers[0][0]) == (429, "queue_full", "retry-after")
    assert call.tokens == 5, (
        "what bodies of a size hold is learnt from it, and the next text to classify is judged by it"
    )


# What is counted


def test_left_out_texts_are_neither_predictions_nor_a_candidates_business(make_models, model_folder):
    models, metrics = make_models(shadow_model=str(model_folder), shadow_ratio=1.0)
    explain, classify = ExplainRequest(inputs=[TEXT, "late " * 100, ""]), TextsRequest(inputs=TEXT)

    def value(name):
        lines = metrics.render().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"bertrand_{name}"))

    asyncio.run(models.current.explain(explain, Call()))
    assert value("predictions_total") == value("confidence_count") == 0
    assert (value('items_total{outcome="ok"}'), value('items_total{outcome="error"}')) == (2, 1)
    assert value("truncated_total") == 1
    asyncio.run(models.current.classify(classify, Call()))
    until(lambda: value("shadow_items_total{"))
    assert value("shadow_items_total{") == value("predictions_total") == 1


def test_bentomls_client_asks_too(server):
    with bentoml.SyncHTTPClient(server) as client:
        (result,) = client.explain(inputs="login", label="praise")["results"]

    assert result["label"] == "praise"
    assert len(result["tokens"]) == 3
