"""The same job on a Ray cluster: the same bytes, whatever happens to its nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

# Ray takes 127.0.0.1 for the address by which others reach this machine, but where a cluster has one machine alone.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
pytest.importorskip("ray", reason="ray is not installed: requirements/ray.txt brings it")

from ray.cluster_utils import Cluster

from scoring import cluster as engine
from scoring.job import Job, score
from scoring.parts import PART_ROWS
from tests.scoring.tables import done_parts, many
from tests.support import ROOT, run_command, until

ROWS = 12 * PART_ROWS["tokens"] + 100


@pytest.fixture(scope="module")
def job(tmp_path_factory, model_folder):
    """A job of thirteen parts, and the bytes that the local engine makes of it."""
    folder = tmp_path_factory.mktemp("ray")
    source = many(folder / "in.csv", ROWS)
    score(Job(str(source), str(folder / "local.parquet"), model_folder, embeddings="tokens"))
    command = ["score", str(source), "--model", str(model_folder), "--embeddings", "tokens", "--json"]
    return command, (folder / "local.parquet").read_bytes()


@pytest.fixture(scope="module")
def nodes():
    """A cluster whose head learns within seconds that a node is gone."""
    settings = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_timeout_ms": 500}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": settings}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made
    finally:
        made.shutdown()


def start(command, options):
    """Start a job to be watched while it runs."""
    arguments = [sys.executable, "-m", "bertrand", *map(str, [*command, *options])]
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts into the background with Ctrl-C ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_cluster_of_this_machine_makes_the_same_bytes_and_leaves_nothing(job, tmp_path):
    command, expected = job
    done = run_command(*command, "--engine", "ray", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS
    assert (tmp_path / "out.parquet").read_bytes() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"out.parquet"}


def test_a_node_that_is_killed_costs_no_row_and_doubles_none(job, nodes, tmp_path):
    command, expected = job
    second = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    options = ["--engine", "ray", "--ray-address", nodes.address, tmp_path / "out.parquet"]
    process = start(command, options)
    until(lambda: len(done_parts(tmp_path / "out.parquet")) >= 4, seconds=120)
    nodes.remove_node(second, allow_graceful=False)
    assert len(done_parts(tmp_path / "out.parquet")) < 13, "killed too late"
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert json.loads(out)["rows"] == ROWS
    assert (tmp_path / "out.parquet").read_bytes() == expected


def test_a_job_that_is_killed_on_a_cluster_is_resumed_on_this_machine(job, nodes, tmp_path):
    command, expected = job
    out = tmp_path / "out.parquet"
    process = start(command, ["--engine", "ray", "--ray-address", nodes.address, out])
    until(lambda: len(done_parts(out)) >= 2, seconds=120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = done_parts(out)
    done = run_command(*command, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_rows"] == len(parts) * PART_ROWS["tokens"]
    assert (tmp_path / "out.parquet").read_bytes() == expected


def test_a_job_with_every_part_done_needs_no_cluster(job, tmp_path):
    """A kill came after the last part: what is left is to make the output of them."""
    command, expected = job
    out = tmp_path / "out.parquet"
    limited = run_command(*command, out, "--max-error-rate", "0.01993")  # the last part goes beyond it
    assert (limited.returncode, len(done_parts(out))) == (1, 13), limited.stderr
    done = run_command(*command, out, "--resume", "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected


def test_the_keys_of_an_object_store_reach_the_cluster(job, nodes, store, keys):
    """Its nodes were started without them."""
    command, expected = job
    store.put_file(command[1], "jobs/in.csv")
    options = ["--engine", "ray", "--ray-address", nodes.address, "s3://jobs/out.parquet"]
    done = run_command("score", "s3://jobs/in.csv", *command[2:], *options, **keys)
    assert done.returncode == 0, done.stderr
    assert store.cat_file("jobs/out.parquet") == expected


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_job_takes_its_own_cluster_with_it(job, tmp_path, sent, code):
    command, _ = job
    process = start(command, ["--engine", "ray", tmp_path / "out.parquet"])
    until(lambda: len(done_parts(tmp_path / "out.parquet")) >= 1, seconds=120)
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    addresses = set()
    for one in started:
        with suppress(psutil.NoSuchProcess):  # what has ended meanwhile listens no more
            addresses |= {each.laddr.ip for each in one.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    assert addresses, "the cluster's own processes listen"
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "nobody else is to reach it"
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "go on with --resume" in err
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


def test_without_ray_one_line_names_the_requirement(job, tmp_path):
    command, _ = job
    arguments = [*command, "--engine", "ray", str(tmp_path / "out.parquet")]
    hidden = f"import sys; sys.modules['ray'] = None; from bertrand.__main__ import main; sys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "requirements/ray.txt" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "ray", "--ray-address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (["--engine", "ray", "--ray-address", "ray://127.0.0.1:10001"], "start the job on a node of the cluster"),
        (["--ray-address", "auto"], "--engine ray"),
    ],
)
def test_an_address_that_is_no_cluster_is_one_line(job, tmp_path, options, told):
    command, _ = job
    done = run_command(*command, *options, tmp_path / "out.parquet")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_a_worker_that_could_answer_otherwise_refuses():
    versions = engine._versions()
    assert engine._differing(versions) is None
    refusal = engine._differing({**versions, "onnxruntime": "1.0"})
    assert f"onnxruntime is {versions['onnxruntime']} and not 1.0" in refusal
