"""Many prompts in a row against a real server: does anything grow, does anything slow down, is the same still the same?

    COMFYUI_PATH=... python -m benchmarks.soak --prompts 500

The small model, and its cartoons. Faces, strengths, texts and the number of people change from prompt to prompt;
every tenth prompt is one and the same, and its picture must come out byte by byte as the first time. Told at the end:
the server's memory, open handles and threads, and the time per prompt, of the first and the last tenth.
"""

import argparse
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from faceclip.comfy.server import ComfyServer
from faceclip.comfy.workflow import example, for_small_model, use_aligned_face
from faceclip.small.models import write_small_model
from faceclip.small.pictures import cartoons

STEPS = 2
SAME_EVERY = 10
MAY_GROW = 60.0  # MB of memory, over the whole run after the first tenth: what the host's own cache takes


def prompts(pictures: list[str], count: int, seed: int):
    """API prompts: (what it is, whether it is the one that repeats)."""
    draw = random.Random(seed)
    for number in range(count):
        same = number % SAME_EVERY == 0
        here = random.Random(0) if same else draw
        yield build(here, pictures, 7 if same else draw.randrange(2**32)), same


def build(draw: random.Random, pictures: list[str], seed: int) -> dict:
    """A portrait after one crop or two, of some strength, with or without a second person."""
    prompt = for_small_model("portrait", json.loads(example("portrait").read_text("utf-8")), steps=STEPS)
    prompt = use_aligned_face(prompt, draw.choice(pictures))
    if draw.random() < 0.5:
        prompt["more"] = {"class_type": "LoadImage", "inputs": {"image": draw.choice(pictures)}}
        prompt["align more"] = {"class_type": "FaceCLIPAlignedFace", "inputs": {"image": ["more", 0]}}
        prompt["identity"]["inputs"] |= {"face_2": ["align more", 0], "outliers": "keep"}
    words = draw.sample(["a park", "red hair", "a hat", "glasses", "a grey wall", "smiling", "at night"], 3)
    prompt["positive"]["inputs"] |= {"text": ", ".join(words), "strength": round(draw.uniform(0.2, 2.0), 2)}
    if draw.random() < 0.3:
        person = {key: prompt["positive"]["inputs"][key] for key in ("faceclip", "identity", "width", "height")}
        person |= {"conditioning": ["positive", 0], "text": words[0], "region": "left half", "strength": 1.0}
        prompt["person"] = {"class_type": "FaceCLIPAddPerson", "inputs": {**person, "scene_share": 0.2}}
        prompt["sample"]["inputs"]["positive"] = ["person", 0]
    prompt["sample"]["inputs"]["noise_seed"] = seed
    return prompt


def measure(process: psutil.Process) -> dict[str, float]:
    handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    return {"MB": process.memory_info().rss / 2**20, "handles": handles, "threads": process.num_threads()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        parser.error("COMFYUI_PATH names no ComfyUI")
    with tempfile.TemporaryDirectory() as folder:
        write_small_model(Path(folder) / "models")
        with ComfyServer(Path(comfyui), Path(folder)) as server:
            pictures = [server.client.upload_image(one) for one in cartoons() if one.stem.endswith("_face")]
            rows, same = run(server, pictures, arguments)
    return tell(rows, same, max(arguments.prompts // 10, 1))


def run(server: ComfyServer, pictures: list[str], arguments) -> tuple[list[dict[str, float]], set[str]]:
    """A row for each prompt, and the hashes of the pictures of the one that repeats."""
    process, rows, same = psutil.Process(server.pid), [], set()
    for number, (prompt, repeats) in enumerate(prompts(pictures, arguments.prompts, arguments.seed)):
        if repeats:
            server.client.free()  # else the host answers it out of its cache, and nothing is made
            time.sleep(0.5)
        started = time.monotonic()
        result = server.client.run(prompt, timeout=600)
        seconds = time.monotonic() - started
        data = server.client.view(result.images("save")[0])
        if repeats:
            same.add(hashlib.sha256(data).hexdigest())
        rows.append({"seconds": seconds, "repeats": repeats, **measure(process)})
        if (number + 1) % 25 == 0:
            print(f"{number + 1} prompts: {rows[-1]['MB']:.0f} MB, {rows[-1]['handles']} handles", flush=True)
    return rows, same


def tell(rows: list[dict[str, float]], same: set[str], tenth: int) -> int:
    """Print the first against the last tenth; 1 where something grew or the same prompt gave another picture."""
    first, last = rows[:tenth], rows[-tenth:]
    print(f"{len(rows)} prompts; medians of the first and the last {tenth}:")
    for name in ("seconds", "MB", "handles", "threads"):
        print(f"  {name:8} {statistics.median(row[name] for row in first):10.2f} "
              f"{statistics.median(row[name] for row in last):10.2f}")  # fmt: skip
    print(f"the prompt that repeats: {len(same)} different picture{'s' * (len(same) != 1)}")
    grown = {name: last[-1][name] - rows[min(tenth, len(rows) - 1)][name] for name in ("MB", "handles", "threads")}
    bad = len(same) != 1 or grown["MB"] > MAY_GROW or grown["handles"] > 5 or grown["threads"] > 5
    print(f"grown since the first tenth: {grown['MB']:.0f} MB, {grown['handles']} handles, {grown['threads']} threads")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
