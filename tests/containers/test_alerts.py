"""The rules of deploy/prometheus, by Prometheus' own tool, and what the docs say of each alert."""

import yaml

from tests.containers.stack import PROMETHEUS
from tests.support import ROOT

RULES = ROOT / "deploy" / "prometheus"


def test_every_alert_fires_when_it_should_and_not_otherwise(engine):
    told = engine(
        "run", "--rm", "--volume", f"{RULES}:/rules:ro", "--entrypoint", "promtool", PROMETHEUS,
        "test", "rules", "/rules/rules_test.yml",
    )  # fmt: skip
    assert "SUCCESS" in told


def test_every_alert_has_a_test_of_firing_and_one_of_not():
    tests = yaml.safe_load((RULES / "rules_test.yml").read_text())["tests"]
    expected = [(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]]
    assert set(expected) == {(name, fires) for name in alerts() for fires in (True, False)}


def test_the_docs_say_of_every_alert_what_to_do():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert {name for name in alerts() if f"`{name}`" not in text} == set()


def alerts():
    files = (yaml.safe_load((RULES / name).read_text()) for name in ("rules.yml", "haproxy_rules.yml"))
    return {rule["alert"] for file in files for group in file["groups"] for rule in group["rules"] if "alert" in rule}
