"""The stack as `docker compose up` starts it, looked at from outside."""

import json
import time

from .compose import Stack, run, wait_for


def test_it_makes_a_video(stack: Stack) -> None:
    video = stack.wait_until_ended(stack.post())
    assert video["status"] == "completed", video
    with stack.client() as http:
        content = http.get(f"/v1/videos/{video['id']}/content")
    assert content.headers["content-type"] == "video/mp4"
    assert content.content[4:8] == b"ftyp"


def test_the_health_checks_agree(stack: Stack) -> None:
    for service in ("redis", "api", "worker"):
        wait_for(lambda s=service: stack.is_healthy(s), f"{service} to be healthy")


def test_containers_can_do_no_more_than_they_must(stack: Stack) -> None:
    containers = {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in stack.containers()}
    assert set(containers) == {"setup", "redis", "api", "worker"}
    for name, container in containers.items():
        host = container["HostConfig"]
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert not host["Privileged"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name


def test_nothing_but_the_api_is_published_and_that_on_this_machine_alone(stack: Stack) -> None:
    published = {
        (c["Config"]["Labels"]["com.docker.compose.service"], binding["HostIp"])
        for c in stack.containers()
        for bindings in (c["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings or ()
    }
    assert published == {("api", "127.0.0.1")}


def test_redis_is_on_the_inner_network_alone_and_asks_for_a_password(stack: Stack) -> None:
    [redis] = stack.containers("redis")
    assert list(redis["NetworkSettings"]["Networks"]) == [f"{stack.project}_inside"]
    [network] = json.loads(run("docker", "network", "inspect", f"{stack.project}_inside"))
    assert network["Internal"]
    assert "NOAUTH" in stack.compose("exec", "-T", "redis", "redis-cli", "keys", "*")
    health = ["redis-cli", "--user", "health", "--pass", "x", "--no-auth-warning"]
    assert "PONG" in stack.compose("exec", "-T", "redis", *health, "ping")
    assert "NOPERM" in stack.compose("exec", "-T", "redis", *health, "get", "x")


def test_the_password_is_drawn_and_is_in_no_settings_and_no_log(stack: Stack) -> None:
    ask = ["/opt/framedit/bin/python", "-c", "print(open('/secrets/redis_password').read())"]
    password = stack.compose("exec", "-T", "api", *ask).strip()
    assert len(password) > 30
    assert password not in json.dumps(stack.containers())
    assert password not in stack.compose("logs", "--no-color")


def test_gpus_are_asked_for_as_docker_takes_it(stack: Stack) -> None:
    """There need be none: what Compose makes of the profile is looked at, and not started."""
    text = stack.compose("--profile", "gpu", "config", "--format", "json")
    worker = json.loads(text)["services"]["worker-gpu"]
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", -1, ["gpu"])
    assert worker["command"] == ["worker", "--devices", "all"]
    assert worker["image"] == "framedit-worker:latest-cuda"


def test_what_is_stopped_ends_in_order_and_its_video_is_made_after_all(stack: Stack) -> None:
    video_id = stack.post(num_inference_steps=30)
    asked_at = time.monotonic()
    stack.compose("stop", "worker", "api")
    assert time.monotonic() - asked_at < 40  # of the 60 after which Docker kills
    for service in ("worker", "api"):
        [container] = stack.containers(service)
        assert container["State"]["ExitCode"] == 0, stack.compose("logs", service)
    stack.up()
    assert stack.wait_until_ended(video_id)["status"] == "completed"


def test_what_is_stopped_while_it_starts_ends_at_once(stack: Stack) -> None:
    for service in ("worker", "api"):
        [name] = stack.names(service)
        run("docker", "restart", name)
        asked_at = time.monotonic()
        run("docker", "stop", name)
        assert time.monotonic() - asked_at < 20, service
        [container] = stack.containers(service)
        assert container["State"]["ExitCode"] in (0, 143), service
    stack.up()
