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

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
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
    servers, out = [FakeComfy(seconds=0.05), FakeComfy(seconds=0.05)], tmp_path / "out"
    (tmp_path / "ada.png").write_bytes(png(1))
    jobs = table(tmp_path, [{"photo": "ada.png", "prompt": f"chef {number}"} for number in range(60)])
    addresses = [part for server in servers for part in ("--server", server.url)]
    left = []

    def kill():
        deadline = time.monotonic() + 40
        while not (all(server.prompts for server in servers) and has_actor(second)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if has_actor(second):
            left.append(60 - sum(len(server.prompts) for server in servers))
            cluster.remove_node(second, allow_graceful=False)

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
    assert len(set(keys)) == 60 and len(keys) <= 62, "only what ran on the dead machine was begun again"
