"""The scripts of docs/api.md, as they are written there, and the client that they use."""

import asyncio
import json
import re
import subprocess
import sys

import pytest

from faceclip.comfy import Client
from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server_errors import ExecutionFailed, TooSlow
from faceclip.comfy.workflow import for_small_model
from faceclip.small import models as small

PAGE = (PACK_ROOT / "docs" / "api.md").read_text("utf-8")
SCRIPT, PORTRAITS, SAVED, PEOPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PNG = b"\x89PNG\r\n\x1a\n"


def run(folder, script: str, *arguments):
    (folder / "script.py").write_text(script, "utf-8")
    command = [sys.executable, "script.py", *map(str, arguments)]
    environment = {"PYTHONPATH": str(PACK_ROOT), "PATH": ""}
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(command, **options)


@pytest.fixture
def photos(base_directory):
    return [base_directory / "input" / f"cartoon_{name}.png" for name in ("ada", "bo")]


@pytest.fixture
def examples(tmp_path):
    """The examples for the small model, with few steps, since what they draw does not matter here."""
    for name in ("portrait", "saved_character", "load_character", "two_people"):
        api = json.loads((PACK_ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
        (tmp_path / f"{name}.json").write_text(json.dumps(for_small_model(name, api, steps=2)), "utf-8")
    return tmp_path


@pytest.mark.parametrize("script", [SCRIPT, PORTRAITS, SAVED, PEOPLE])
def test_a_script_has_twenty_lines(script):
    assert len([line for line in script.splitlines() if line.strip()]) <= 20


def test_the_script_brings_a_portrait(server, tmp_path):
    workflow = PACK_ROOT / "workflows" / "api" / "small_model.json"
    done = run(tmp_path, SCRIPT, server.url, workflow, small.FOLDER / "cartoon_bo_face.png", "A smiling person")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "portrait.png").read_bytes()[:8] == PNG


def test_it_says_what_went_wrong(server, tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 200)).save(tmp_path / "wide.png")
    workflow = PACK_ROOT / "workflows" / "api" / "small_model.json"
    done = run(tmp_path, SCRIPT, server.url, workflow, tmp_path / "wide.png", "A smiling person")
    assert done.returncode == 1 and "an aligned face is square" in done.stderr


def test_portraits(server, yunet_name, examples, photos):
    done = run(examples, PORTRAITS, server.url, "portrait.json", "A smiling person", *photos)
    assert done.returncode == 0, done.stderr
    made = [(examples / f"cartoon_{name}_portrait.png").read_bytes() for name in ("ada", "bo")]
    assert made[0][:8] == made[1][:8] == PNG and made[0] != made[1]


def test_a_saved_person(server, base_directory, yunet_name, examples, photos):
    done = run(examples, SAVED, server.url, ".", photos[0], "Ada of the page", "A smiling person", "A sad person")
    assert done.returncode == 0, done.stderr
    saved = base_directory / "models" / "faceclip_identities" / "Ada of the page.safetensors"
    assert saved.is_file() and "executing" in done.stdout
    assert all((examples / f"Ada of the page_{number}.png").read_bytes()[:8] == PNG for number in range(2))
    saved.unlink()


def test_several_people(server, yunet_name, examples, photos):
    people = [part for photo in (*photos, photos[0]) for part in (photo, "A smiling person")]
    done = run(examples, PEOPLE, server.url, "two_people.json", "Three people", *people)
    assert done.returncode == 0, done.stderr
    assert (examples / "people.png").read_bytes()[:8] == PNG


def test_several_at_once_in_order_and_in_asyncio(server, yunet_name, examples):
    client = Client(server.url)
    prompt = json.loads((examples / "portrait.json").read_text("utf-8"))
    prompts = []
    for seed in range(4):
        prompts.append(json.loads(json.dumps(prompt)))
        prompts[-1]["sample"]["inputs"]["noise_seed"] = seed
    results = list(client.run_all(prompts, at_once=3))
    assert [client.history(one.prompt_id)["prompt"][2]["sample"]["inputs"]["noise_seed"] for one in results] == [
        0,
        1,
        2,
        3,
    ]
    pictures = [client.view(one.images("save")[0]) for one in results]

    async def both():
        return await asyncio.gather(*(asyncio.to_thread(Client(server.url).run, one) for one in prompts[:2]))

    again = [client.view(one.images("save")[0]) for one in asyncio.run(both())]
    assert len(set(pictures)) == 4 and again[0] != again[1]

    prompts[1]["align"]["inputs"]["input_faces_index"] = 99
    given = []
    with pytest.raises(ExecutionFailed, match="align"):
        given.extend(client.run_all(iter(prompts), at_once=1))
    with pytest.raises(TooSlow):
        prompts[0]["settings"]["inputs"]["steps"] = 60
        client.run(prompts[0], timeout=0.05)
    client.cancel(next(iter(client._json("/queue")["queue_running"]))[1])
