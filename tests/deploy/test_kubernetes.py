"""The Kubernetes manifests: valid by the published schemas, and nothing in them that Bertrand does not know."""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from bertrand.__main__ import _parse
from service.metrics import Metrics
from service.routes import ROUTES
from service.settings import Settings
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ROOT / "deploy" / "kubernetes"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
RULES = FOLDER / "components" / "prometheus" / "adapter-rules.yaml"  # of prometheus-adapter, not of Kubernetes
FILES = sorted(set(FOLDER.rglob("*.yaml")) - {*KUSTOMIZATIONS, RULES})
PATCHES = {
    file.parent / patch["path"]
    for file in KUSTOMIZATIONS
    for patch in yaml.safe_load(file.read_text(encoding="utf-8")).get("patches", [])
}
VERSIONS = (
    "1.27",
    "1.37",
)  # the oldest that has every field, as docs/kubernetes.md says, and the newest that is published
SERVED = "bertrand"  # the container of the service

# The package has the schemas of Kubernetes' own kinds. Of the Prometheus operator's this is the part that is used here.
SERVICE_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["selector", "endpoints"],
            "additionalProperties": False,
            "properties": {
                "selector": {
                    "type": "object",
                    "required": ["matchLabels"],
                    "additionalProperties": False,
                    "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "interval": {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"},
                        },
                    },
                },
            },
        },
    },
}


class Manifests(list[dict[str, Any]]):
    """What is applied to a cluster, together."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [manifest for manifest in self if manifest["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (manifest,) = self.of(kind)
        return manifest

    def pods(self) -> list[dict[str, Any]]:
        return [pod for manifest in self if (pod := pod_of(manifest))]


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return metadata and spec of the pods that a manifest makes; empty where it makes none."""
    if manifest["kind"] == "Pod":
        return manifest
    job = manifest["spec"]["jobTemplate"] if manifest["kind"] == "CronJob" else manifest
    template: dict[str, Any] = job.get("spec", {}).get("template", {})
    return template


def containers(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for manifest in manifests:
        yield from pod_of(manifest).get("spec", {}).get("containers", [])


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def chosen(selector: dict[str, Any], pod: dict[str, Any]) -> bool:
    labels = pod["metadata"]["labels"]
    return all(labels.get(name) == value for name, value in selector.items())


@cache
def validator(kind: str, api_version: str, version: str) -> jsonschema.Draft202012Validator:
    if kind == "ServiceMonitor":
        return jsonschema.Draft202012Validator(SERVICE_MONITOR)
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    schema, definitions = (schema_contents(f"{folder}/{file}.json", version) for file in (name, "_definitions"))
    registry: Registry[Any] = Resource.from_contents(definitions) @ Registry()
    return jsonschema.Draft202012Validator(schema, registry=registry)


def complaints(manifest: dict[str, Any], version: str, *, patch: bool = False) -> list[str]:
    """Return what a cluster of this version would refuse; of a patch, not that it says a part only."""
    errors = validator(manifest["kind"], manifest["apiVersion"], version).iter_errors(manifest)
    return [f"{error.json_path}: {error.message}" for error in errors if not (patch and error.validator == "required")]


def rendered(folder: Path) -> Manifests:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl, which renders a kustomization, is not here; the files themselves are tested all the same")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Manifests(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=["files", "base", "overlays/example"])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    """All files but the patches, as they are; and what a cluster gets of the base and of the overlay, with the jobs."""
    if request.param == "files":
        return Manifests(manifest for file in FILES if file not in PATCHES for manifest in documents(file))
    jobs = [manifest for file in sorted((FOLDER / "jobs").glob("*.yaml")) for manifest in documents(file)]
    return Manifests([*rendered(FOLDER / request.param), *jobs])


@pytest.fixture(scope="module")
def example() -> Manifests:
    return rendered(FOLDER / "overlays" / "example")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_every_file_follows_the_published_schemas(file, version):
    """Strictly: a field that the schema does not have is refused, where a cluster may only warn."""
    for manifest in documents(file):
        assert complaints(manifest, version, patch=file in PATCHES) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_cluster_gets_follows_the_published_schemas(manifests, version):
    """Patches are valid only together with what they change."""
    assert [found for manifest in manifests for found in complaints(manifest, version)] == []


@pytest.mark.parametrize(
    ("file", "place", "field", "value"),
    [
        ("base/deployment.yaml", "spec.template.spec.containers.0.securityContext", "readOnlyRootFileSystem", True),
        ("base/deployment.yaml", "spec.template.spec.containers.0.livenessProbe", "httpget", {"path": "/livez"}),
        ("base/deployment.yaml", "spec", "replicas", "two"),
        ("base/autoscaler.yaml", "spec", "maxReplicas", "10"),
        ("base/network.yaml", "spec", "policyType", ["Ingress"]),
        ("base/disruption.yaml", "spec", "minimumAvailable", 1),
        ("components/keys/deployment.yaml", "spec.template.spec.volumes.0.secret", "name", "bertrand-keys"),
        ("components/prometheus/monitor.yaml", "spec.endpoints.0", "targetport", "http"),
        ("components/scoring/nightly.yaml", "spec", "concurrency", "Forbid"),
        ("jobs/score.yaml", "spec.template.spec", "restartpolicy", "OnFailure"),
    ],
)
def test_a_mistake_is_refused(file, place, field, value):
    """What checks the manifests can fail: a misspelt field, one of the wrong type, one of another object."""
    for version in VERSIONS:
        manifest = copy.deepcopy(documents(FOLDER / file)[0])
        parent: Any = manifest
        for step in place.split("."):
            parent = parent[int(step) if step.isdigit() else step]
        parent[field] = value
        assert len(complaints(manifest, version, patch=FOLDER / file in PATCHES)) == 1


def test_every_file_is_part_of_something():
    """A kustomization names files and folders that are there, and no file is forgotten; jobs are applied one by one."""
    named = set()
    for file in KUSTOMIZATIONS:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        patches = [patch["path"] for patch in content.get("patches", [])]
        for name in [*content.get("resources", []), *content.get("components", []), *patches]:
            path = (file.parent / name).resolve()
            assert path.is_file() or (path / "kustomization.yaml").is_file(), f"{file}: {name} is not there"
            named.add(path)
    assert set(FILES) - named == set((FOLDER / "jobs").glob("*.yaml"))
    assert {file.parent for file in KUSTOMIZATIONS} - named == {FOLDER / "overlays" / "example"}


class Asked(dict[str, str]):
    """An environment that notes which variables are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_every_variable_is_one_that_the_service_reads(tmp_path):
    """A misspelt variable would be passed over in silence."""
    keys = tmp_path / "keys"
    keys.write_text("k" * 16)
    asked = Asked()
    Settings.from_environment(asked)

    given = [variables(container) for file in FILES for container in containers(documents(file))]
    assert set().union(*given) <= asked.names
    for values in filter(None, given):  # each value is one that the setting takes
        Settings.from_environment({name: str(keys) if name.endswith("_FILE") else values[name] for name in values})


def test_every_command_is_one_that_bertrand_understands(manifests):
    """By the parser of the command itself."""
    commands = []
    for container in containers(manifests):
        if container.get("command") == ["sh", "-ec"]:
            commands += re.findall(r"bertrand (.*)", container["args"][0])
        elif "command" not in container:
            commands.append(shlex.join(container["args"]))
    parsed = [_parse(shlex.split(command)) for command in commands]

    assert {options.command for options in parsed} >= {"serve", "score"}
    serve = next(options for options in parsed if options.command == "serve")
    (port,) = served(manifests)["ports"]
    assert (serve.host, serve.port) == ("0.0.0.0", port["containerPort"])  # noqa: S104  in a pod of its own
    assert all(options.resume for options in parsed if options.command == "score")


def served(manifests: Manifests) -> dict[str, Any]:
    """Return the container of the service."""
    (container,) = (found for found in containers(manifests.of("Deployment")) if found["name"] == SERVED)
    return container


def test_probes_and_scrapes_ask_at_paths_that_are_there(manifests):
    """And at ports that have the name."""
    container = served(manifests)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}

    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert all(ROUTES[probe["path"]]["GET"].group == "health" for probe in probes.values())
    assert all(probe["port"] in ports for probe in probes.values())
    (public,) = manifests.one("Service")["spec"]["ports"]
    assert public["targetPort"] in ports
    for monitor in manifests.of("ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        assert ROUTES[endpoint["path"]]["GET"].group == "metrics"
        assert endpoint["port"] == public["name"]
    for policy in manifests.of("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert [port["port"] for port in rule["ports"]] == list(ports.values())


def test_a_pod_may_drain_and_finish_before_it_is_killed(manifests):
    """After SIGTERM it answers for the time of the drain, and then finishes what is in flight."""
    settings = Settings.from_environment(variables(served(manifests)) | {"BERTRAND_API_KEYS_FILE": ""})
    pod = pod_of(manifests.one("Deployment"))["spec"]

    assert pod["terminationGracePeriodSeconds"] >= settings.drain_seconds + settings.request_timeout + 10
    assert settings.drain_seconds >= 2 * served(manifests)["readinessProbe"]["periodSeconds"]
    assert manifests.one("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_selectors_choose_the_pods_they_are_for(manifests):
    """The service's own for everything about the service, and none of a job, which would be sent requests."""
    deployment = manifests.one("Deployment")
    service = pod_of(deployment)
    others = [pod for pod in manifests.pods() if pod is not service]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        manifests.one("Service")["spec"]["selector"],
        manifests.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        *(rule["labelSelector"]["matchLabels"] for rule in service["spec"]["topologySpreadConstraints"]),
        *(
            policy["spec"]["podSelector"]["matchLabels"]
            for policy in manifests.of("NetworkPolicy")
            if "ingress" in policy["spec"]
        ),
    ]
    assert len(others) >= 2
    for selector in selectors:
        assert chosen(selector, service)
        assert not any(chosen(selector, pod) for pod in others)
    for monitor in manifests.of("ServiceMonitor"):
        assert chosen(monitor["spec"]["selector"]["matchLabels"], manifests.one("Service"))
    target = manifests.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert {name: target[name] for name in ("apiVersion", "kind")} == {
        name: deployment[name] for name in ("apiVersion", "kind")
    }
    assert target["name"] == deployment["metadata"]["name"]


def test_no_pod_reaches_out_unless_its_label_asks_for_it(manifests):
    """One policy closes every pod in both directions; what opens something names who may."""
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in manifests.of("NetworkPolicy")}
    closed = policies.pop("bertrand-closed")
    assert all(chosen(closed["podSelector"]["matchLabels"], pod) for pod in manifests.pods())
    assert sorted(closed["policyTypes"]) == ["Egress", "Ingress"]
    assert not {"ingress", "egress"} & closed.keys()
    for policy in policies.values():
        assert all(rule["from"] for rule in policy.get("ingress", []))
        assert "egress" not in policy or not any(
            chosen(policy["podSelector"]["matchLabels"], pod) for pod in manifests.pods()
        )


def test_every_pod_is_as_restricted_as_the_pod_security_standard_asks(manifests):
    """And more: a read-only root, no token of the cluster's API, and a bound on what it may take."""
    for pod in manifests.pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert {context[name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert (
                container["resources"]["requests"].keys()
                == container["resources"]["limits"].keys()
                == {"cpu", "memory"}
            )
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user
    assert user.groups() == ("10001", "10001")


def test_what_a_pod_mounts_is_there(manifests):
    """Volumes have their claims, models are read-only for whoever only reads them, and /tmp can be written."""
    claims = {claim["metadata"]["name"] for claim in manifests.of("PersistentVolumeClaim")}
    if not manifests.of("CronJob"):
        claims.add("bertrand-data")  # of the component that the base alone does not have
    for manifest, pod in ((manifest, pod_of(manifest)) for manifest in manifests):
        if not pod:
            continue
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            assert {mount["name"] for mount in mounts.values()} == volumes.keys()
            assert "emptyDir" in volumes[mounts["/tmp"]["name"]]  # noqa: S108
            writes = manifest["metadata"].get("name") == "bertrand-load"
            assert mounts["/models"].get("readOnly", False) is not writes
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "bertrand-models") in claims


def test_the_autoscaler_asks_for_a_metric_that_the_service_has():
    """And the adapter's rule makes it of the same one."""
    (patch,) = documents(FOLDER / "components" / "prometheus" / "autoscaler.yaml")
    (rule,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    (asked,) = (metric["pods"]["metric"]["name"] for metric in patch["spec"]["metrics"] if metric["type"] == "Pods")
    assert f"\n{asked} 0.0\n" in Metrics(ROUTES).render().decode()
    assert rule["seriesQuery"].partition("{")[0] == asked


def test_the_example_changes_what_it_says(example):
    """Namespace, images, replicas, keys, the queue's metric and the model of service and jobs arrive."""
    assert {manifest["metadata"].get("namespace", "bertrand") for manifest in example} == {"bertrand"}
    images = {container["image"] for container in containers(example)}
    assert images == {f"registry.example.org/{name}:0.1.0" for name in ("bertrand", "bertrand-batch")}
    scale = example.one("HorizontalPodAutoscaler")["spec"]
    assert scale["minReplicas"] == 3
    assert [metric["type"] for metric in scale["metrics"]] == ["Resource", "Pods"]
    models = {variables(container)["BERTRAND_MODEL"] for container in containers(example)}
    assert models == {"/models/tickets-1"}
    assert variables(served(example))["BERTRAND_API_KEYS_FILE"] == "/keys/keys"
    assert example.of("ServiceMonitor")


def nightly() -> dict[str, Any]:
    (manifest,) = documents(FOLDER / "components" / "scoring" / "nightly.yaml")
    return manifest


def test_every_attempt_of_a_night_finds_the_same_date():
    """Else an attempt after midnight would begin another job in place of resuming."""
    spec = nightly()["spec"]
    minute, hour = map(int, spec["schedule"].split()[:2])
    end = (
        hour * 3600
        + minute * 60
        + spec["startingDeadlineSeconds"]
        + spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    )

    assert end < 24 * 3600
    assert spec["timeZone"] == "Etc/UTC"  # `date` in a container knows no other
    assert spec["concurrencyPolicy"] == "Forbid"


def test_the_nightly_job_labels_the_file_of_the_day(model_folder, tmp_path):
    """The script of the CronJob, run as the image runs it; a repetition after it is complete does no harm."""
    (container,) = containers([nightly()])
    script = container["args"][0].replace("/data/", f"{tmp_path}/")
    today = datetime.now(UTC)
    days = [f"{day:%Y-%m-%d}" for day in (today, today + timedelta(days=1))]  # the test may run at midnight
    for day in days:
        (tmp_path / f"{day}.csv").write_text("text\nwhere is my refund\n", encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TZ": "UTC", "BERTRAND_MODEL": str(model_folder), "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run(
            [*container["command"], script], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout)["rows"] == 1
    outputs = {file.name for file in tmp_path.glob("*.parquet")}
    assert outputs
    assert outputs <= {f"{day}.parquet" for day in days}


def test_the_page_tells_of_files_and_commands_that_are_there():
    """Paths in the commands, the commands of Bertrand, and the oldest version."""
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    paths = re.findall(r"deploy/kubernetes[\w./-]*", commands)
    assert paths
    assert all((ROOT / path).exists() for path in paths)
    bertrand = re.findall(r"(?:-- |^)bertrand (.*)$", commands, re.MULTILINE)
    assert [_parse(shlex.split(command)).command for command in bertrand] == ["models"]
    assert f"Kubernetes {VERSIONS[0]} " in PAGE
