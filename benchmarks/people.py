"""What further references and further people cost.

    python benchmarks/people.py [--runs 5] [--threads 2]

References: the full-size encoder (weights from the formula behind the golden files), one prompt for 1, 2 and 4
references of one person. People: the share of a sampling step is the number of conditionings the UNet runs, so it is
counted on the tiny UNet in a real ComfyUI (COMFYUI_PATH), 0 to 4 people, 100 steps; starting the prompt is taken off
by a run of 1 step. Prints medians and ratios.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from golden import golden_face, golden_model  # noqa: E402

from faceclip.demo.photo import astronaut_face_png  # noqa: E402
from faceclip.demo.run import FILES, WORKFLOW  # noqa: E402
from faceclip.demo.server import ComfyServer  # noqa: E402
from faceclip.demo.workflow import fill_in, use_aligned_face  # noqa: E402
from faceclip.person import encode_person, make_person  # noqa: E402
from faceclip.tiny import write_tiny_models  # noqa: E402

PROMPT = "A woman wearing a blue denim shirt and khaki pants, on a rocky desert plateau."
SIZE = {"width": 512, "height": 512}
STEPS = 100


def references(runs: int) -> None:
    model = golden_model("full")
    crops = [golden_face(seed) for seed in range(4)]
    identity = model.encode_identity(torch.stack(crops))
    people = {}
    for count in (1, 2, 4):
        weights = [1.0] * count + [0.0] * (4 - count)
        people[count] = make_person(identity, crops, weights, "keep")[0]
    times = {count: [] for count in people}
    for run in range(runs + 1):
        for count, person in people.items():
            start = time.perf_counter()
            encode_person(model, PROMPT, person)
            if run:  # the first round warms up
                times[count].append(time.perf_counter() - start)
    for count, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times[1], strict=True))
        print(f"{count} references, one prompt: {statistics.median(seconds) * 1000:7.0f} ms {ratio:5.2f}x")


def with_people(prompt: dict, count: int) -> dict:
    """The portrait's scene without identity, and `count` people side by side."""
    prompt = json.loads(json.dumps(prompt))
    identity = prompt["positive"]["inputs"].pop("identity")
    last = ["positive", 0]
    for i in range(count):
        inputs = {"conditioning": last, "faceclip": ["faceclip", 0], "identity": identity, "text": f"person {i}"}
        inputs |= {**SIZE, "region": "box", "strength": 1.0, "scene_share": 0.2, "x": i / count}
        inputs |= {"y": 0.0, "box_width": 1 / count, "box_height": 1.0}
        prompt[f"person{i}"] = {"class_type": "FaceCLIPAddPerson", "inputs": inputs}
        last = [f"person{i}", 0]
    prompt["sample"]["inputs"]["positive"] = last
    return prompt


def people(runs: int) -> None:
    base = Path(tempfile.mkdtemp(prefix="faceclip-people-"))
    (base / "input").mkdir()
    (base / "models").mkdir()
    write_tiny_models(base / "models")
    (base / "input" / "face.png").write_bytes(astronaut_face_png())
    portrait = use_aligned_face(fill_in(json.loads(WORKFLOW.read_text("utf-8")), FILES, SIZE), "face.png")
    with ComfyServer(Path(os.environ["COMFYUI_PATH"]), base) as server:
        seed = 0

        def seconds(count: int, steps: int) -> float:
            nonlocal seed
            seed += 1  # else the host would remember the result
            prompt = with_people(portrait, count)
            prompt["settings"]["inputs"]["steps"] = steps
            prompt["sample"]["inputs"]["noise_seed"] = seed
            return server.client.run(prompt).seconds

        times = {count: [] for count in range(5)}
        for run in range(runs + 1):
            for count, measured in times.items():
                step = (seconds(count, STEPS) - seconds(count, 1)) / (STEPS - 1)
                if run:
                    measured.append(step)
    for count, measured in times.items():
        ratio = statistics.median(a / b for a, b in zip(measured, times[0], strict=True))
        print(f"{count} people, one step at 512 x 512: {statistics.median(measured) * 1000:7.1f} ms {ratio:5.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, CPU")
    if os.environ.get("COMFYUI_PATH"):
        people(args.runs)
    else:
        print("COMFYUI_PATH names no ComfyUI: the cost of people is left out")
    references(args.runs)


if __name__ == "__main__":
    main()
