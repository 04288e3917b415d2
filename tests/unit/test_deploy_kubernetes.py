"""The Kubernetes manifests: valid for the API, hardened, and in agreement with code, images and compose."""

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic_settings import BaseSettings

from masan.report_settings import ReportWorkerSettings
from masan.webhook_settings import WebhookSettings
from service.settings import ServiceSettings
from tests.expressions import RULES_FILE, selections
from tests.manifests import FOLDER, Manifest, containers, environment, manifests, of_kind, workloads
from worker.beating_worker import STOP_LIMIT_S
from worker.settings import WorkerSettings

ROOT = FOLDER.parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SCHEMAS = {
    (schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]): schema
    for schema in (json.loads(path.read_text()) for path in (FOLDER / "schemas").glob("*.json"))
}
OLDEST = "1.29"
"""Older clusters lack what we use; the newest version that the validator knows is tried as well."""

SETTINGS: dict[str, tuple[type[BaseSettings], ...]] = {
    "service": (ServiceSettings,),
    "worker": (WorkerSettings,),
    "reports": (ReportWorkerSettings, WebhookSettings),
    "checkpoint": (ServiceSettings,),
    "valkey": (),
}
OF_OTHERS = {"MASAN_REDIS_PASSWORD", "CUDA_CACHE_PATH", "XDG_CACHE_HOME"}
"""Variables that no settings class reads: a part of a URL, and those of libraries."""

each_container = pytest.mark.parametrize(
    ("name", "container"), [pytest.param(*pair, id=pair[1]["name"]) for pair in containers()]
)


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest.get('metadata', {}).get('name', '')}".strip()


def is_custom(manifest: Manifest) -> bool:
    return (manifest["apiVersion"], manifest["kind"]) in SCHEMAS


@pytest.mark.parametrize("manifest", [m for m in manifests() if not is_custom(m)], ids=name_of)
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_core_kinds_are_what_the_api_takes(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("manifest", [m for m in manifests() if is_custom(m)], ids=name_of)
def test_custom_kinds_are_what_their_schemas_take(manifest: Manifest) -> None:
    schema = SCHEMAS[manifest["apiVersion"], manifest["kind"]]
    Draft202012Validator.check_schema(schema)

    assert [error.message for error in Draft202012Validator(schema).iter_errors(manifest)] == []


def test_a_misspelt_field_is_found() -> None:
    scaler = of_kind("ScaledObject")["masan-worker"]
    wrong = scaler | {"spec": scaler["spec"] | {"maxReplicas": 8}}

    found = list(Draft202012Validator(SCHEMAS[wrong["apiVersion"], "ScaledObject"]).iter_errors(wrong))

    assert len(found) == 1 and "maxReplicas" in found[0].message


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "monitoring"], ids=lambda folder: folder.name)
def test_every_file_is_applied(folder: Path) -> None:
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]

    assert set(listed) | {"kustomization.yaml"} == {path.name for path in folder.glob("*.yaml")}


def test_no_file_leans_on_anchors() -> None:
    """Not every tool that reads manifests merges them."""
    for path in FOLDER.rglob("*.yaml"):
        assert not re.search(r"(?m)^[^#\"']*(<<:|: [&*]\w)", path.read_text()), path


@each_container
def test_variables_are_ones_that_the_process_reads(name: str, container: Manifest) -> None:
    kinds = SETTINGS[container["name"]]
    known = {f"MASAN_{field}".upper() for kind in kinds for field in kind.model_fields} | OF_OTHERS
    told = environment(container)
    own = {each["name"] for each in container.get("env", [])}

    assert own <= known, name
    every = {
        f"MASAN_{field}".upper() for all_ in SETTINGS.values() for kind in all_ for field in kind.model_fields
    }
    assert told.keys() <= every | OF_OTHERS


@each_container
def test_values_are_ones_that_the_process_takes(
    name: str, container: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment(container).items():
        monkeypatch.setenv(variable, value.replace("$(MASAN_REDIS_PASSWORD)", "a1"))

    for kind in SETTINGS[container["name"]]:
        assert kind()


def test_secrets_are_named_never_written_down() -> None:
    assert of_kind("Secret") == {}
    for _, container in containers():
        for each in container.get("env", []):
            if re.search("PASSWORD|SECRET|TOKEN", each["name"]):
                assert "secretKeyRef" in each["valueFrom"]
            elif "://" in each.get("value", ""):
                assert re.fullmatch(r"redis://:\$\(MASAN_REDIS_PASSWORD\)@[^:@]+:\d+/0", each["value"])


@pytest.mark.parametrize(("name", "pod"), [pytest.param(*pair, id=pair[0]) for pair in workloads().items()])
def test_pod_is_hardened(name: str, pod: Manifest) -> None:
    assert pod["enableServiceLinks"] is False, "MASAN_PORT=tcp://... would be told to a process"
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        allowed = container["securityContext"]
        assert allowed == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_images_are_those_of_compose_and_the_dockerfile() -> None:
    users = set(re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    shared = {
        "masan-valkey": "redis",
        "masan-service": "service",
        "masan-worker": "worker",
        "masan-reports": "reports",
    }

    for name, container in containers():
        assert container["image"] == COMPOSE[shared[name]]["image"]
    assert {str(workloads()[name]["securityContext"]["runAsUser"]) for name in list(shared)[1:]} == users
    retagged = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["images"]
    ours = {container["image"] for _, container in containers() if container["image"].startswith("masan-")}
    assert {image["name"] for image in retagged} == ours


def test_reports_and_valkey_are_started_as_compose_starts_them() -> None:
    by_name = {container["name"]: container for _, container in containers()}

    assert by_name["reports"]["command"] == COMPOSE["reports"]["command"]
    assert by_name["checkpoint"]["command"] == COMPOSE["init"]["command"]
    ours, theirs = (
        command[-1].replace("$$", "$")
        for command in (by_name["valkey"]["command"], COMPOSE["redis"]["command"])
    )
    assert ours == theirs


def test_ports_are_those_that_the_processes_listen_on() -> None:
    ports = {
        container["name"]: {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for _, container in containers()
    }
    told = {container["name"]: environment(container) for _, container in containers()}

    assert ports["service"] == {"http": int(told["service"]["MASAN_PORT"])}
    assert ports["worker"] == {"metrics": int(told["worker"]["MASAN_METRICS_PORT"])}
    assert f":{ports['valkey']['redis']}/" in told["service"]["MASAN_REDIS_URL"]
    exposed = set(re.findall(r"^EXPOSE (\d+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    assert exposed == {str(ports["service"]["http"]), str(ports["worker"]["metrics"])}


def test_names_lead_to_pods() -> None:
    named: dict[str, set[str]] = {
        owner["metadata"]["labels"]["app.kubernetes.io/component"]: {
            port["name"]
            for container in owner["spec"]["template"]["spec"]["containers"]
            for port in container.get("ports", [])
        }
        for owner in (of_kind("Deployment") | of_kind("StatefulSet")).values()
    }
    selecting: list[tuple[dict[str, Any], set[str]]] = [
        (service["spec"]["selector"], {port["targetPort"] for port in service["spec"]["ports"]})
        for service in of_kind("Service").values()
    ]
    selecting += [
        (
            monitor["spec"]["selector"]["matchLabels"],
            {end["port"] for end in monitor["spec"]["podMetricsEndpoints"]},
        )
        for monitor in of_kind("PodMonitor").values()
    ]
    selecting += [
        (each["spec"]["selector"]["matchLabels"], set()) for each in of_kind("PodDisruptionBudget").values()
    ]

    assert len(selecting) == 5
    for labels, ports in selecting:
        assert labels["app.kubernetes.io/name"] == "masan"
        assert ports <= named[labels["app.kubernetes.io/component"]]
    urls = [environment(container).get("MASAN_REDIS_URL", "") for _, container in containers()]
    hosts = {url.rpartition("@")[2].partition(":")[0] for url in urls if url}
    assert hosts <= of_kind("Service").keys()


def test_every_workload_can_reach_what_it_needs_and_nothing_is_open() -> None:
    policies = {name: policy["spec"] for name, policy in of_kind("NetworkPolicy").items()}
    everything = policies["nothing-else"]

    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for spec in policies.values():
        for rule in spec.get("ingress", []):
            assert rule["from"] and rule["ports"]
        for rule in spec.get("egress", []):
            assert rule["to"] and rule["ports"]
    into = policies["valkey-takes-ours"]["ingress"][0]["from"][0]["podSelector"]
    assert into == policies["ours-reach-valkey"]["podSelector"]
    assert into["matchExpressions"][0]["values"] == ["service", "worker", "reports"]


def test_a_stop_has_the_time_it_takes() -> None:
    grace = {name: pod["terminationGracePeriodSeconds"] for name, pod in workloads().items()}
    service = next(
        environment(container) for name, container in containers() if container["name"] == "service"
    )

    needed = float(service["MASAN_SHUTDOWN_DELAY_S"]) + float(service["MASAN_SHUTDOWN_GRACE_S"])
    assert grace["masan-service"] >= needed + 10
    assert min(grace["masan-worker"], grace["masan-reports"]) >= STOP_LIMIT_S + 10


def test_probes_ask_what_the_process_answers() -> None:
    probes = {
        (container["name"], kind): container[f"{kind}Probe"]["httpGet"]["path"]
        for _, container in containers()
        for kind in ("startup", "liveness", "readiness")
        if "httpGet" in container.get(f"{kind}Probe", {})
    }

    assert probes == {
        ("service", "startup"): "/startupz",
        ("service", "liveness"): "/livez",
        ("service", "readiness"): "/readyz?scope=process",
        ("worker", "startup"): "/metrics",
        ("worker", "liveness"): "/metrics",
    }


def test_every_mount_has_its_volume() -> None:
    claims = of_kind("PersistentVolumeClaim").keys()
    templates = {
        template["metadata"]["name"]
        for owner in of_kind("StatefulSet").values()
        for template in owner["spec"]["volumeClaimTemplates"]
    }
    for name, pod in workloads().items():
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | templates
        mounted = {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]}
        assert mounted <= volumes, name
        for volume in pod.get("volumes", []):
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "masan-models") in claims


def test_worker_takes_one_gpu_and_leaves_its_number_to_the_scaler() -> None:
    worker = of_kind("Deployment")["masan-worker"]["spec"]
    resources = worker["template"]["spec"]["containers"][0]["resources"]
    scaler = of_kind("ScaledObject")["masan-worker"]["spec"]

    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == 1
    assert "replicas" not in worker
    assert scaler["scaleTargetRef"] == {"name": "masan-worker"}
    assert scaler["minReplicaCount"] >= 1, "without a live worker jobs are refused and nothing waits"
    [selection] = selections(scaler["triggers"][0]["metadata"]["query"])
    assert (selection.metric, selection.around) == ("masan_queue_images", ("max", "sum"))


def test_rules_are_those_that_prometheus_tests() -> None:
    assert of_kind("PrometheusRule")["masan"]["spec"] == yaml.safe_load(RULES_FILE.read_text())
