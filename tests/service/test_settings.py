"""Settings are one validated object: a typing error in a variable stops the start, and says which."""

import json
import shutil

import pytest

from inference import InputError
from inference.machine import cpu_count
from service.settings import Settings, tokens_in

KEY, OTHER_KEY = "0123456789abcdef-one", "0123456789abcdef-two"


def test_nothing_set_gives_the_defaults_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({})

    assert settings.model == str(tmp_path / "models" / "current")
    assert (settings.workers, settings.threads) == (1, cpu_count())
    assert (settings.shadow_model, settings.shadow_ratio) == (None, 0.1)


def test_where_no_link_says_which_the_newest_model_is_served(tmp_path, monkeypatch, model_folder):
    """A bento holds no links, and a stranger has made none; a name with a dot is of what is not whole."""
    for name, year in (("older", 2024), ("newer", 2025), (".newer.partial-1-x", 2026)):
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
            "BERTRAND_MAX_QUEUE_TOKENS": "500",
            "BERTRAND_MAX_INPUTS": "7",
            "BERTRAND_MAX_TEXT_CHARACTERS": "800",
            "BERTRAND_MAX_BODY_BYTES": "1000",
            "BERTRAND_REQUEST_TIMEOUT": "2.5",
            "BERTRAND_DRAIN_SECONDS": "0",
            "BERTRAND_API_KEYS": f"{KEY}, {OTHER_KEY}",
            "BERTRAND_KEYLESS": "health,docs",
            "BERTRAND_CORS_ORIGINS": "https://app.example.org",
            "BERTRAND_SHADOW_MODEL": "/candidate",
            "BERTRAND_SHADOW_RATIO": "0.25",
            "BERTRAND_LOG_FORMAT": "json",
            "BERTRAND_ACCESS_LOG": "true",
        }
    )

    assert settings == Settings(
        model="/m",
        precision="fp32",
        workers=3,
        threads=5,
        max_batch_tokens=99,
        max_queue_tokens=500,
        max_inputs=7,
        max_text_characters=800,
        max_body_bytes=1000,
        request_timeout=2.5,
        drain_seconds=0,
        api_keys=frozenset({KEY, OTHER_KEY}),
        keyless=frozenset({"health", "docs"}),
        cors_origins=frozenset({"https://app.example.org"}),
        shadow_model="/candidate",
        shadow_ratio=0.25,
        log_format="json",
        access_log=True,
    )
    assert KEY not in repr(settings)
    assert settings.keys() == {KEY, OTHER_KEY}


def test_keys_come_from_a_file_too(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# the app\n{KEY}  # alice, until spring\n  # {KEY}-gone\n\n{KEY}#1\n")
    variables = {"BERTRAND_API_KEYS_FILE": str(file), "BERTRAND_API_KEYS": OTHER_KEY}

    assert Settings.from_environment(variables).keys() == {KEY, f"{KEY}#1", OTHER_KEY}
    file.write_text("# nobody\n")
    with pytest.raises(InputError, match="holds no key, which would open the service to everybody"):
        Settings.from_environment(variables)
    file.unlink()
    with pytest.raises(InputError, match=r"BERTRAND_API_KEYS_FILE .* cannot be read"):
        Settings.from_environment(variables)


@pytest.mark.parametrize("key", ["too-short", "x" * 15, "a key with spaces in it", "schlüssel-mit-umlaut"])
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(key):
    with pytest.raises(InputError, match="BERTRAND_API_KEYS: a key of") as caught:
        Settings.from_environment({"BERTRAND_API_KEYS": key})
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("THREADS", "two"),
        ("MAX_INPUTS", "-1"),
        ("MAX_BODY_BYTES", "1e6"),
        ("PRECISION", "int4"),
        ("THREADS", "²"),
        ("REQUEST_TIMEOUT", "0"),
        ("REQUEST_TIMEOUT", "nan"),
        ("DRAIN_SECONDS", "soon"),
        ("SHADOW_RATIO", "0"),
        ("SHADOW_RATIO", "1.5"),
        ("SHADOW_RATIO", "nan"),
        ("SHADOW_RATIO", "10%"),
        ("LOG_FORMAT", "xml"),
        ("ACCESS_LOG", "1"),
    ],
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(InputError, match=f"BERTRAND_{name} is '{value}'; expected"):
        Settings.from_environment({f"BERTRAND_{name}": value})


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("KEYLESS", "health,everything", "has everything; expected none, or some of"),
        ("CORS_ORIGINS", "app.example.org", "has 'app.example.org'; expected origins such as https://"),
        ("CORS_ORIGINS", "https://app.example.org/page", "expected origins"),
    ],
)
def test_a_wrong_part_of_a_list_is_named(name, value, complaint):
    with pytest.raises(InputError, match=complaint):
        Settings.from_environment({f"BERTRAND_{name}": value})


@pytest.mark.parametrize(
    ("memory", "workers", "expected"),
    [
        (None, 1, 65_536),
        (512 * 2**20, 1, 8_554),
        (1024 * 2**20, 2, 8_554),
        (512 * 2**20, 2, 2048),  # too little for two models: as few as ever
        (2**40, 1, 68_694_476),
    ],
)
def test_what_may_wait_follows_the_memory_of_the_container(memory, workers, expected):
    assert tokens_in(memory, workers) == expected
