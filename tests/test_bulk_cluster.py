"""`make --ray` on a cluster of two machines, of Ray's own for tests: one is killed, with the actor on it."""

import json
import threading
import time

import psutil
import pytest
from fake_comfy import FakeComfy, png
from test_bulk_make import make, table


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray", reason='ray is not installed (the extra "ray")')
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    # Ray waits half a minute before it calls a machine dead.
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
    found = Cluster(initialize_head=True, head_node_args=head)
    yield found
    found.shutdown()


def has_actor(node) -> bool:
    """Whether one of our actors runs on a machine of the cluster."""
    (raylet,) = node.all_processes["raylet"]
    return any(
        "_Seat" in " ".join(one.cmdline()) for one in psutil.Process(raylet.process.pid).children(recursive=True)
    )


def test_a_machine_that_dies_costs_nothing_but_time(cluster, tmp_path):
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    servers, out = [FakeComfy(seconds=0.5) for _ in range(3)], tmp_path / "out"
    (tmp_path / "ada.png").write_bytes(png(1))
    jobs = table(tmp_path, [{"photo": "ada.png", "prompt": f"chef {number}"} for number in range(60)])
    addresses = [part for server in servers for part in ("--server", server.url)]
    left = []

    def kill():
        deadline = time.monotonic() + 30
        while not (all(server.prompts for server in servers) and has_actor(second)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if has_actor(second):
            left.append(60 - sum(len(server.prompts) for server in servers))
            cluster.remove_node(second, allow_graceful=False)
        for server in servers:
            server.seconds = 0.02

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert make(jobs, out, *addresses, "--ray", cluster.address) == 0
    finally:
        thread.join(60)
        for server in servers:
            server.close()
    assert left and left[0] > 5, "no actor came to the second machine, or it was not killed in the middle"
    assert len(list(out.glob("*.png"))) == len(list(out.glob("0*.json"))) == 60
    keys = [json.dumps(prompt) for server in servers for prompt in server.prompts]
    assert len(set(keys)) == 60 and len(keys) <= 66, "only what ran on the dead machine was begun again"
