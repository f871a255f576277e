"""The manifests against Kubernetes' schemas, and against the commands and settings of the project."""

import ipaddress
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.main import get_group

from cli.main import app
from cli.processes.worker_process import END_SECONDS
from jobs.settings import Settings
from jobs.settings_sources import variables

ROOT = Path(__file__).parents[2]
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "kubernetes/framedit.yml").read_text()))
SCALED: dict[str, Any] = yaml.safe_load((ROOT / "kubernetes/autoscaling.yml").read_text())
PODS = {m["metadata"]["name"]: m["spec"]["template"] for m in MANIFESTS if m["kind"] == "Deployment"}


@pytest.mark.parametrize("version", ["1.30", "1.34"])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_manifests_match_the_schemas_of_kubernetes(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_an_error() -> None:
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
def test_pods_have_minimal_privileges_and_time_to_end(name: str) -> None:
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


def test_the_grace_period_covers_the_drain() -> None:
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


def test_a_disruption_budget_keeps_pods_running() -> None:
    budgets = {m["metadata"]["name"]: m["spec"] for m in MANIFESTS if m["kind"] == "PodDisruptionBudget"}
    replicas = {m["metadata"]["name"]: m["spec"].get("replicas", 1) for m in MANIFESTS if m["kind"] == "Deployment"}
    assert budgets.keys() == PODS.keys()
    for name, budget in budgets.items():
        # Neither none at all, nor all for ever: that would keep a node from being drained.
        assert budget.get("maxUnavailable", 0) == 1 or 0 < budget["minAvailable"] < replicas[name], name


def test_manifests_name_existing_commands_settings_and_routes() -> None:
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


def test_the_scaled_object_matches_the_schema_of_keda() -> None:
    assert (SCALED["apiVersion"], SCALED["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    check_fields("spec", SCALED["spec"])
    [trigger] = SCALED["spec"]["triggers"]
    check_fields("trigger", trigger)
    assert trigger["type"] == "prometheus"
    check_fields("prometheus", trigger["metadata"])
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_the_autoscaler_of_keda_matches_the_schema_of_kubernetes() -> None:
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


def test_workers_scale_by_an_existing_metric() -> None:
    assert SCALED["spec"]["scaleTargetRef"]["name"] in PODS
    [trigger] = SCALED["spec"]["triggers"]
    assert "framedit_queue_depth" in trigger["metadata"]["query"]
    assert "framedit_queue_depth" in (ROOT / "docs/monitoring.md").read_text()


@pytest.mark.parametrize("name", PODS)
def test_pods_reach_dns_redis_and_public_addresses_only(name: str) -> None:
    [policy] = [m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == name]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    # A worker has no ingress rule, so nothing may connect to it.
    assert policy.get("ingress") == ([{"ports": [{"protocol": "TCP", "port": "http"}]}] if "api" in name else None)
    dns, redis, public = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in redis["ports"]} == {6379, 26379}
    blocks = [ipaddress.ip_network(text) for rule in public["to"] for text in rule["ipBlock"]["except"]]
    for address in (
        "10.1.2.3",
        "172.20.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "fd00::1",
        "fe80::1",
    ):
        assert any(ipaddress.ip_address(address) in block for block in blocks), address
