"""The Kubernetes manifests, as read from their files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "kubernetes"

Manifest = dict[str, Any]


def manifests(folder: Path = FOLDER) -> list[Manifest]:
    """Every document below a folder."""
    files = sorted(folder.rglob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


def of_kind(kind: str) -> dict[str, Manifest]:
    """All of a kind, by name."""
    return {each["metadata"]["name"]: each for each in manifests() if each["kind"] == kind}


def workloads() -> dict[str, Manifest]:
    """Pod specs by the name of what makes the pods."""
    owners = of_kind("Deployment") | of_kind("StatefulSet")
    return {name: owner["spec"]["template"]["spec"] for name, owner in owners.items()}


def containers() -> Iterator[tuple[str, Manifest]]:
    """Every container, those that run first included, with its workload's name."""
    for name, pod in workloads().items():
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            yield name, container


def environment(container: Manifest) -> dict[str, str]:
    """What a container is told: the variables of the config map and its own; '' for those from a secret."""
    shared: dict[str, str] = {}
    for source in container.get("envFrom", []):
        shared |= of_kind("ConfigMap")[source["configMapRef"]["name"]]["data"]
    return shared | {each["name"]: each.get("value", "") for each in container.get("env", [])}
