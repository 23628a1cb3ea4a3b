"""Settings are one validated object: a typing error in a variable stops the start, and says which."""

import json
import shutil

import pytest

from inference import InputError
from inference.machine import cpu_count
from service.settings import Settings


def test_nothing_set_gives_the_defaults_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({})

    assert settings.model == str(tmp_path / "models" / "current")
    assert (settings.workers, settings.threads) == (1, cpu_count())


def test_where_no_link_says_which_the_newest_model_is_served(tmp_path, monkeypatch, model_folder):
    """A bento holds no links, and a stranger has made none."""
    for name, year in (("older", 2024), ("newer", 2025)):
        shutil.copytree(model_folder, tmp_path / "models" / name)
        manifest = tmp_path / "models" / name / "model.json"
        changed = json.loads(manifest.read_text()) | {"created": f"{year}-01-01T00:00:00+00:00"}
        manifest.write_text(json.dumps(changed))
    monkeypatch.chdir(tmp_path)

    assert Settings.from_environment({}).model == str(tmp_path / "models" / "newer")
    (tmp_path / "models" / "current").symlink_to("older")
    assert Settings.from_environment({}).model == str(tmp_path / "models" / "current")


def test_every_variable_is_read():
    settings = Settings.from_environment(
        {
            "BERTRAND_MODEL": "/m",
            "BERTRAND_PRECISION": "fp32",
            "BERTRAND_WORKERS": "3",
            "BERTRAND_THREADS": "5",
            "BERTRAND_MAX_BATCH_TOKENS": "99",
            "BERTRAND_MAX_INPUTS": "7",
            "BERTRAND_MAX_BODY_BYTES": "1000",
        }
    )

    assert settings == Settings("/m", "fp32", 3, 5, 99, 7, 1000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("THREADS", "two"),
        ("MAX_INPUTS", "-1"),
        ("MAX_BODY_BYTES", "1e6"),
        ("PRECISION", "int4"),
        ("THREADS", "²"),
    ],
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(InputError, match=f"BERTRAND_{name} is '{value}'; expected"):
        Settings.from_environment({f"BERTRAND_{name}": value})
