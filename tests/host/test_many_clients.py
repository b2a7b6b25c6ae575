"""Many people at one server, who queue and cancel as they like: every prompt ends, and the next picture is right."""

import concurrent.futures
import json
import random
import time

from faceclip.comfy.client import Client
from faceclip.comfy.workflow import example, for_small_model, use_aligned_face

CLIENTS, PROMPTS, SECONDS = 8, 5, 300


def prompt(seed: int, text: str = "a person", steps: int = 2) -> dict:
    portrait = for_small_model("portrait", json.loads(example("portrait").read_text("utf-8")), steps=steps)
    portrait = use_aligned_face(portrait, "cartoon_ada_face.png")
    portrait["positive"]["inputs"]["text"] = text
    portrait["sample"]["inputs"]["noise_seed"] = seed
    return portrait


def picture(client: Client, seed: int) -> bytes:
    client.free()  # else the host answers out of its cache
    time.sleep(1)
    result = client.run(prompt(seed, "the same as ever"), timeout=SECONDS)
    return client.view(result.images("save")[0])


def queue_and_cancel(url: str, number: int) -> list[str]:
    """One client's prompts, of which it takes some out of the queue and interrupts others; their ids."""
    draw, client, ids = random.Random(number), Client(url), []
    for turn in range(PROMPTS):
        steps = draw.choice((1, 4, 12))
        ids.append(client.queue(prompt(1000 * number + turn, f"client {number}, {turn}", steps)))
        time.sleep(draw.uniform(0, 0.3))
        what = draw.random()
        if what < 0.35:
            client._json("/queue", {"delete": [draw.choice(ids)]}, answer=False)
        elif what < 0.7:
            client._json("/interrupt", {"prompt_id": draw.choice(ids)}, answer=False)
        elif what < 0.8:
            client.interrupt()  # whatever runs, be it another's
        elif what < 0.85:
            client.free()
    return ids


def test_eight_clients_that_queue_and_cancel_at_random(client, server, base_directory):
    before = picture(client, 77)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        ids = [one for found in pool.map(lambda n: queue_and_cancel(server.url, n), range(CLIENTS)) for one in found]
    assert len(set(ids)) == CLIENTS * PROMPTS
    deadline = time.monotonic() + SECONDS
    while (queue := client._json("/queue"))["queue_running"] or queue["queue_pending"]:
        assert time.monotonic() < deadline, f"{len(queue['queue_pending'])} prompts wait, one does not end"
        time.sleep(0.5)
    ended = [client.history(one) for one in ids]
    states = [record["status"]["status_str"] for record in ended if record]  # those taken out before have none
    assert set(states) <= {"success", "error"} and "success" in states
    for record in filter(None, ended):
        kinds = [kind for kind, _ in record["status"]["messages"]]
        assert "execution_error" not in kinds, record["status"]["messages"]
    assert server.is_running() and picture(client, 77) == before
