"""The manifests against Kubernetes' own schemas, and against what the project says of itself."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_group

from cli.main import app
from cli.worker_child import END_SECONDS
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


def test_a_worker_has_the_time_to_drain() -> None:
    spec = PODS["framedit-worker"]["spec"]
    [container] = spec["containers"]
    given = spec["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    config = next(m for m in MANIFESTS if m["kind"] == "ConfigMap")["data"]
    drain = float(config.get("FRAMEDIT_DRAIN_SECONDS", Settings().drain_seconds))
    assert given > drain + END_SECONDS


def test_an_outage_of_redis_restarts_no_worker_and_no_api() -> None:
    worker, api = (PODS[name]["spec"]["containers"][0] for name in ("framedit-worker", "framedit-api"))
    assert "livenessProbe" not in worker
    assert api["livenessProbe"]["httpGet"]["path"] == "/livez"  # /readyz is what fails without Redis
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_some_pods_are_left_when_nodes_are_drained() -> None:
    budgets = {m["metadata"]["name"]: m["spec"] for m in MANIFESTS if m["kind"] == "PodDisruptionBudget"}
    replicas = {m["metadata"]["name"]: m["spec"].get("replicas", 1) for m in MANIFESTS if m["kind"] == "Deployment"}
    assert budgets.keys() == PODS.keys()
    for name, budget in budgets.items():
        # Neither none at all, nor all for ever: that would keep a node from being drained.
        assert budget.get("maxUnavailable", 0) == 1 or 0 < budget["minAvailable"] < replicas[name], name


def test_they_say_nothing_that_the_project_does_not_know() -> None:
    settings = {name for field in Settings.model_fields for name in variables(Settings, field)}
    commands = set(get_group(app).commands)
    config = next(m for m in MANIFESTS if m["kind"] == "ConfigMap")["data"]
    given = set(config) | {e["name"] for pod in PODS.values() for e in pod["spec"]["containers"][0]["env"]}
    assert {name.removesuffix("_FILE") for name in given} <= settings
    assert {pod["spec"]["containers"][0]["args"][0] for pod in PODS.values()} <= commands


# KEDA's kinds are not in Kubernetes' schemas: these are the fields that its reference has, those required first.
SCALED_OBJECT = {
    "spec": ["scaleTargetRef", "triggers"],
    "spec optional": [
        "advanced",
        "cooldownPeriod",
        "fallback",
        "idleReplicaCount",
        "initialCooldownPeriod",
        "maxReplicaCount",
        "minReplicaCount",
        "pollingInterval",
    ],
    "trigger": ["metadata", "type"],
    "trigger optional": ["authenticationRef", "metricType", "name", "useCachedMetrics"],
    "prometheus": ["query", "serverAddress", "threshold"],
    "prometheus optional": [
        "activationThreshold",
        "authModes",
        "customHeaders",
        "ignoreNullValues",
        "namespace",
        "queryParameters",
        "timeout",
        "unsafeSsl",
    ],
}


def check_fields(kind: str, fields: dict[str, Any]) -> None:
    assert set(SCALED_OBJECT[kind]) <= fields.keys() <= {*SCALED_OBJECT[kind], *SCALED_OBJECT[f"{kind} optional"]}


def test_keda_is_asked_for_what_it_knows() -> None:
    assert (SCALED["apiVersion"], SCALED["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    check_fields("spec", SCALED["spec"])
    [trigger] = SCALED["spec"]["triggers"]
    check_fields("trigger", trigger)
    assert trigger["type"] == "prometheus"
    check_fields("prometheus", trigger["metadata"])
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_keda_makes_an_autoscaler_of_it_that_kubernetes_takes() -> None:
    spec = SCALED["spec"]
    [trigger] = spec["triggers"]
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": SCALED["metadata"],
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "metrics": [
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": "s0-prometheus"},
                        "target": {"type": "AverageValue", "averageValue": trigger["metadata"]["threshold"]},
                    },
                }
            ],
            **spec["advanced"]["horizontalPodAutoscalerConfig"],
        },
    }
    kubernetes_validate.validate(autoscaler, "1.34", strict=True)


def test_keda_scales_the_workers_by_a_metric_that_there_is() -> None:
    assert SCALED["spec"]["scaleTargetRef"]["name"] in PODS
    [trigger] = SCALED["spec"]["triggers"]
    assert "framedit_queue_depth" in trigger["metadata"]["query"]
    assert "framedit_queue_depth" in (ROOT / "docs/monitoring.md").read_text()
