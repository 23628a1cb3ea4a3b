"""Settings are one validated object: a typing error in a variable stops the start, and says which."""

import pytest

from inference import InputError
from inference.machine import cpu_count
from service.settings import Settings


def test_nothing_set_gives_the_defaults_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({})

    assert settings.model == "models/current"
    assert (settings.workers, settings.threads) == (1, cpu_count())


@pytest.mark.parametrize(("names", "taken"), [(["a"], "models/a"), (["a", "b"], "models/current")])
def test_the_only_model_needs_no_name(tmp_path, monkeypatch, names, taken):
    for name in names:
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.json").touch()
    monkeypatch.chdir(tmp_path)

    assert Settings.from_environment({}).model == taken


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
