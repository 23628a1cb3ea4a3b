"""The examples of docs/scoring.md are what they say: options that exist, YAML and Python that can be read."""

import re

import yaml

from bertrand.__main__ import _parse
from tests.support import ROOT

TEXT = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [body for name, body in fenced if name == language]


def test_every_command_is_understood():
    commands = re.findall(r"^.*?bertrand (score .*)$", "\n".join(blocks("sh") + blocks("")), re.MULTILINE)
    (job,) = map(yaml.safe_load, blocks("yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (dag,) = blocks("python")
    compile(dag, "docs/scoring.md", "exec")
    airflow = " ".join(re.findall(r'^ *"(?:bertrand)? ?(.*)"$', dag, re.MULTILINE)).replace("{{ ds }}", "day")

    parsed = [_parse(command.split()) for command in [*commands, airflow]] + [_parse(container["args"])]
    assert len(parsed) == 5
    assert all(options.model for options in parsed)
