"""docker-compose.yml as a whole: what is reachable, what is watched, and that nothing is lost when replicas change."""

import json
import time

import httpx
import pyarrow.parquet
import pytest
import yaml

from service.http import BENTOML_PATHS
from service.routes import ROUTES
from tests.containers.stack import Wrk
from tests.load import Load
from tests.support import manifest_of, until


def test_both_replicas_are_watched_and_the_rules_are_loaded(stack):
    until(lambda: sum(value for _, value in stack.query('up{job="bertrand"}')) == 2, 60)
    assert [value for _, value in stack.query("count(count by (instance) (bertrand_model_info == 1))")] == [2]
    # Prometheus tells of its rules as a target of its own, which it may reach after the replicas.
    until(lambda: stack.query("prometheus_rule_group_rules > 0"), 60)
    files = {labels["rule_group"].partition(";")[0] for labels, _ in stack.query("prometheus_rule_group_rules > 0")}
    assert files == {"/etc/prometheus/rules.yml", "/etc/prometheus/haproxy_rules.yml"}


def test_every_query_of_the_dashboard_has_an_answer(stack):
    """Asked of the Prometheus that the dashboard asks, of real figures of the last seconds."""
    with Load(stack.url) as callers:
        callers.wait_for(200)
        dashboard = json.loads((stack.folder / "deploy" / "grafana" / "dashboards" / "bertrand.json").read_text())
        asked = {}
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
                asked[panel["title"], expression] = None
        assert len(asked) > 20
        # Rates need two scrapes, and recorded ones that their rules were evaluated since.
        until(lambda: all(stack.query(expression) for _, expression in asked), 90)
    source = yaml.safe_load(
        (stack.folder / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"} == {
        source["datasources"][0]["uid"]
    }


def test_outside_there_is_what_the_service_answers_and_no_more(stack):
    """A route that the proxy does not let through, or lets through unknown to the service, has HAProxy's 404."""
    with httpx.Client(base_url=stack.url) as client:
        for template in ROUTES:
            path = template.format(name="tiny", version="1")
            through = client.request("OPTIONS", path).headers.get("server") is not None or _answered(client, path)
            assert through == (template != "/metrics"), template
        for path in BENTOML_PATHS:
            assert client.get(path).status_code == 200, path
        for path in ("/metrics", "/v1/classify/", "/v1", "/v2/models/", "/../metrics", "/x"):
            refused = client.get(path, headers={"X-Request-ID": "mine"})
            assert refused.status_code == 404, path
            assert refused.json()["error"]["code"] == "route_unknown"
            assert refused.json()["request_id"] == refused.headers["x-request-id"] == "mine"
        for forged in ([("X-Request-ID", 'ok, x","status":"200')], [("X-Request-ID", "ok"), ("X-Request-ID", 'a"b')]):
            refused = client.get("/x", headers=forged)
            assert len(refused.json()["request_id"]) == 36, "made anew"
            answered = client.get("/v1/info", headers=forged)
            assert len(answered.headers["x-request-id"]) == 36


def _answered(client, path):
    """Whether the service itself answers at a path: it says 405 to a method that it does not know there."""
    return client.request("PATCH", path).status_code == 405


def test_a_body_that_is_too_large_is_refused_unread(stack):
    answer = httpx.post(f"{stack.url}/v1/classify", content=b"[" * 8_000_001)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


@pytest.mark.usefixtures("batch_image")
def test_a_batch_job_runs_in_the_stack(stack, tmp_path):
    """As a user of this machine that the image does not know, into a folder of that user's."""
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    results.mkdir()
    results.chmod(0o777)
    (data / "test.csv").write_text("text\nmoney back please\nwhere to login\n")
    variables = {"BERTRAND_DATA": str(data), "BERTRAND_RESULTS": str(results), "BERTRAND_USER": "12345:12345"}
    stack.compose("--profile", "score", "run", "--rm", "score", **variables)
    rows = pyarrow.parquet.read_table(results / "scored.parquet").to_pylist()
    assert [row["predicted_label"] for row in rows] == ["refund", "login"]


def test_a_replica_that_is_killed_costs_what_it_was_answering(stack, tmp_path):
    victim = stack.replicas()[0]
    with Wrk(stack.url, tmp_path) as load:
        time.sleep(1)
        stack.engine("kill", victim)
        time.sleep(3)
        stack.engine("start", victim)
        until(lambda: stack.ready_replicas() == 2, 60)
        time.sleep(1)
    lost = load.answers.pop(502, 0) + load.broken
    assert set(load.answers) == {200}
    assert lost <= 8, "one request of each caller, at the most"
    assert load.timeouts == load.refused_connections == 0


def test_a_replica_that_is_restarted_costs_nothing(stack, tmp_path):
    with Wrk(stack.url, tmp_path) as load:
        time.sleep(1)
        stack.engine("restart", "--time", "40", stack.replicas()[0])
        until(lambda: stack.ready_replicas() == 2, 60)
        time.sleep(1)
    _nothing_is_lost(load)


def test_another_version_is_taken_up_and_back_and_costs_nothing(stack, tmp_path):
    old, new = (manifest_of(stack.models / name)["version"] for name in ("tiny-1", "tiny-2"))
    assert stack.versions() == {old}
    with Wrk(stack.url, tmp_path) as load:
        time.sleep(1)
        stack.compose("--profile", "models", "run", "--rm", "models", "use", "tiny-2")
        until(lambda: stack.versions() == {new}, 30)
        stack.compose("--profile", "models", "run", "--rm", "models", "use", "tiny-1")
        until(lambda: stack.versions() == {old}, 30)
    _nothing_is_lost(load)


def test_the_end_of_the_stack_is_clean(stack, tmp_path):
    """
    Last, since the stack is gone then: what comes too late is refused, and nothing breaks off.

    wrk makes the load, but calls a refused connection what it calls a broken one; other callers tell them apart.
    """
    with Wrk(stack.url, tmp_path) as load, Load(stack.url) as callers:
        callers.wait_for(100)
        stack.compose("stop")
    assert set(load.answers) <= {200, 503}
    assert load.answers[200]
    assert callers.failures == []
    with pytest.raises(httpx.ConnectError):
        stack.ask()
    ended = stack.containers()
    assert len(ended) == 4
    for name in ended:
        assert json.loads(stack.engine("inspect", name))[0]["State"]["ExitCode"] == 0, name


def _nothing_is_lost(load):
    assert set(load.answers) == {200}
    assert load.broken == load.timeouts == load.refused_connections == 0
