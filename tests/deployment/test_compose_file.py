"""Checks of docker-compose.yml and the Dockerfiles without Docker; docker/stack_tests runs them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.processes.worker_process import END_SECONDS
from jobs.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_minimal_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["init"] is True
    assert service["restart"] == (
        "no" if "healthcheck" in service and service["healthcheck"].get("disable") else "unless-stopped"
    )
    assert "privileged" not in service
    assert "cap_add" not in service


def test_redis_is_on_the_internal_network_only() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["inside"]
    assert {name for name, service in SERVICES.items() if "inside" in service.get("networks", [])} == {
        "redis",
        "api",
        "worker",
        "worker-gpu",
    }


def test_ports_are_published_on_loopback_by_default() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"api", "grafana"}
    assert ports["api"] == ["${API_ADDRESS:-127.0.0.1}:${API_PORT:-8000}:8000"]
    assert all(port.startswith("127.0.0.1:") for port in ports["grafana"])


def test_services_wait_until_redis_is_healthy() -> None:
    for name in ("api", "worker", "worker-gpu"):
        assert SERVICES[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert SERVICES["redis"]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}


def test_the_grace_period_covers_the_drain() -> None:
    for name in ("worker", "worker-gpu"):
        given = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert given > Settings().drain_seconds + END_SECONDS


def test_all_gpus_are_reserved() -> None:
    reservations = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]
    assert reservations == {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}


def test_every_variable_of_the_file_is_in_the_example_with_its_default() -> None:
    example = dict(re.findall(r"^# (\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    used = dict(re.findall(r"\$\{(\w+)(?::-([^}]*))?\}", TEXT))
    names = {name for name in used if not name.startswith(("FRAMEDIT_", "AWS_"))}
    assert {name: used[name] for name in names} == {name: example.get(name, "missing") for name in names}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_an_unprivileged_user(path: Path) -> None:
    text = path.read_text()
    final = text.rpartition("\nFROM ")[2]
    assert text.count("ARG BASE_IMAGE=python:3.11-slim") == 1
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    for instruction in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "RUN"):
        lines = re.findall(rf"^{instruction} .*$", final, re.MULTILINE)
        assert lines, instruction
        assert all("[" in line for line in lines), lines


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_source_change_reinstalls_no_dependency(path: Path) -> None:
    steps = re.findall(r"^(?:COPY|RUN) (?:.*\\\n)*.*", path.read_text(), re.MULTILINE)
    source = next(index for index, step in enumerate(steps) if step.startswith("COPY . "))
    assert any("--require-hashes --no-deps -r " in step for step in steps[:source])
    assert all("--no-deps" in step for step in steps[source:] if "install -" in step and "pip" in step)


LOCKED = {"build": (), "server": ("s3", "tracing"), "worker": ("worker", "s3", "tracing")}


@pytest.mark.parametrize("name", LOCKED)
def test_packages_of_the_images_are_pinned_with_hashes(name: str) -> None:
    """`make lock` writes these files."""
    locked = (ROOT / f"docker/requirements/{name}.txt").read_text()
    entries = re.findall(r"^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", locked, re.MULTILINE)
    assert len(entries) == locked.count("==") > 3
    pins = {name.lower().replace("_", "-"): version for name, version, _ in entries}
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    tested = {name.lower().replace("_", "-"): version for name, version in tested.items()}
    assert {name: tested[name] for name in pins if name in tested}.items() <= pins.items(), "run `make lock`"
    if extras := LOCKED[name]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        lines = [
            *project["dependencies"],
            *(line for extra in extras for line in project["optional-dependencies"][extra]),
        ]
        declared = {re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-") for line in lines}
        declared.add("async-timeout")  # of redis, on Python 3.11.0 to 3.11.2, such as Debian 12's
        assert declared - pins.keys() - {"torch"} == set(), "run `make lock`"
        assert not {name for name in pins if name.startswith("nvidia-")}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_take_no_package_without_a_hash_but_torch(path: Path) -> None:
    installs = re.findall(r"pip\S*(?: --python \S+)?\"?,? \"?install\"?,? (.*)$", path.read_text(), re.MULTILINE)
    foreign = [line for line in installs if "--require-hashes" not in line and "--no-" not in line]
    expected = [["torch", "-c", "constraints.txt"]] if "worker" in path.name else []
    assert [line.split()[:3] for line in foreign] == expected


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_hold_a_bill_of_materials(path: Path) -> None:
    assert "cyclonedx-py environment /opt/framedit/bin/python -o /opt/framedit/sbom.cdx.json" in path.read_text()


def test_the_redis_password_is_generated_once_or_given(tmp_path: Path) -> None:
    def written(**env: str) -> dict[str, str]:
        subprocess.run([sys.executable, ROOT / "docker/setup/redis_secrets.py", tmp_path], env=env, check=True)
        return {path.name: path.read_text() for path in tmp_path.iterdir()}

    drawn = written()
    assert len(drawn["redis_password"]) > 30
    assert f'requirepass "{drawn["redis_password"]}"' in drawn["redis.conf"]
    assert drawn["redis_url"] == f"redis://:{drawn['redis_password']}@redis:6379/0"
    assert written() == drawn
    given = written(REDIS_PASSWORD="p@ss/word")
    assert given["redis_url"] == "redis://:p%40ss%2Fword@redis:6379/0"
    assert 'requirepass "p@ss/word"' in given["redis.conf"]


@pytest.mark.parametrize(("limit", "num_bytes"), [("", 322122547), ("512m", 322122547), ("2g", 1288490188)])
def test_the_memory_limit_of_redis_is_below_the_container_s(tmp_path: Path, limit: str, num_bytes: int) -> None:
    env = {"REDIS_MEMORY": limit} if limit else {}
    subprocess.run([sys.executable, ROOT / "docker/setup/redis_secrets.py", tmp_path], env=env, check=True)
    lines = (tmp_path / "redis.conf").read_text().splitlines()
    assert f"maxmemory {num_bytes}" in lines
    assert "maxmemory-policy noeviction" in lines


def test_deployments_set_a_time_to_live() -> None:
    assert SERVICES["api"]["environment"]["FRAMEDIT_VIDEO_TTL_SECONDS"] == "${VIDEO_TTL_SECONDS:-604800}"
    config = next(
        m for m in yaml.safe_load_all((ROOT / "kubernetes/framedit.yml").read_text()) if m["kind"] == "ConfigMap"
    )
    assert int(config["data"]["FRAMEDIT_VIDEO_TTL_SECONDS"]) == 604_800


@pytest.mark.parametrize(
    ("env", "starts"),
    [
        ({}, True),
        ({"API_ADDRESS": "127.0.0.1", "ALLOW_ANONYMOUS": ""}, True),
        ({"API_ADDRESS": "::1"}, True),
        ({"API_ADDRESS": "0.0.0.0", "ALLOW_ANONYMOUS": ""}, False),
        ({"API_ADDRESS": "192.168.1.5"}, False),
        ({"API_ADDRESS": "0.0.0.0", "ALLOW_ANONYMOUS": "false"}, True),
        ({"API_ADDRESS": "0.0.0.0", "ALLOW_ANONYMOUS": "true"}, True),
    ],
)
def test_a_network_needs_the_owner_s_consent(tmp_path: Path, env: dict[str, str], starts: bool) -> None:
    command = [sys.executable, ROOT / "docker/setup", tmp_path]
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (ended.returncode == 0) is starts
    assert (tmp_path / "redis_url").exists() is starts
    assert ("publishes the API to a network" in ended.stderr) is not starts
