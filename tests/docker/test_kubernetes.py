"""The manifests against Kubernetes' own schemas, and against what the project says of itself."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_group

from cli.main import app
from jobs.effective import variables
from jobs.settings import Settings

ROOT = Path(__file__).parents[2]
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "kubernetes/framedit.yml").read_text()))
SCALED: dict[str, Any] = yaml.safe_load((ROOT / "kubernetes/autoscaling.yml").read_text())
PODS = {m["metadata"]["name"]: m["spec"]["template"] for m in MANIFESTS if m["kind"] == "Deployment"}


@pytest.mark.parametrize("version", ["1.30", "1.34"])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_they_are_what_kubernetes_takes(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


def test_selectors_find_the_pods() -> None:
    for manifest in MANIFESTS:
        spec = manifest.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector)
        if manifest["kind"] != "ConfigMap":
            name = manifest["metadata"]["name"]
            assert wanted.items() <= PODS[name]["metadata"]["labels"].items(), name


@pytest.mark.parametrize("name", PODS)
def test_pods_can_do_no_more_than_they_must_and_are_given_time_to_end(name: str) -> None:
    spec = PODS[name]["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] < spec["terminationGracePeriodSeconds"]
    assert {"startupProbe", "readinessProbe"} <= container.keys()


def test_they_say_nothing_that_the_project_does_not_know() -> None:
    settings = {name for field in Settings.model_fields for name in variables(Settings, field)}
    commands = set(get_group(app).commands)
    config = next(m for m in MANIFESTS if m["kind"] == "ConfigMap")["data"]
    given = set(config) | {e["name"] for pod in PODS.values() for e in pod["spec"]["containers"][0]["env"]}
    assert {name.removesuffix("_FILE") for name in given} <= settings
    assert {pod["spec"]["containers"][0]["args"][0] for pod in PODS.values()} <= commands


def test_keda_scales_the_workers_by_a_metric_that_there_is() -> None:
    # KEDA's kinds are not in Kubernetes' schemas; these are the fields that its reference calls required.
    assert (SCALED["apiVersion"], SCALED["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    assert SCALED["spec"]["scaleTargetRef"]["name"] in PODS
    [trigger] = SCALED["spec"]["triggers"]
    assert trigger["type"] == "prometheus"
    assert {"serverAddress", "query", "threshold"} <= trigger["metadata"].keys()
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert "framedit_queue_depth" in trigger["metadata"]["query"]
    assert "framedit_queue_depth" in (ROOT / "docs/monitoring.md").read_text()
