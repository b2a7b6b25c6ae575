"""What further references and further people cost.

    python -m benchmarks.people [--runs 5] [--threads 1] [--steps 3] [--part people|references]

References: the full-size encoder (weights from the formula behind the golden files), one prompt for 1, 2 and 4
references of one person; and a hundred with the small encoder (in a process of its own the peak is its own: `--part
references --runs 1`). People: the small UNet at 768 x 768 in a real ComfyUI (COMFYUI_PATH), 0 to 4 people, guidance
on, and two of them with `region_only`. What is timed is the CPU time of the process, over all its threads, so that what
else the machine does counts little. The cases take turns, and the first turn warms up; prints medians, and medians of
the ratios within a turn.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
# The golden weights and a process inside the host belong to the tests, which are no package.
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "host")]

from golden import golden_face, golden_model  # noqa: E402
from inprocess import run_in_host  # noqa: E402

from benchmarks.encode import own_peak_gb  # noqa: E402
from benchmarks.inside_steps import time_steps  # noqa: E402
from faceclip.comfy.workflow import SMALL_FILES  # noqa: E402
from faceclip.identity.person import make_person, person_conditioning  # noqa: E402
from faceclip.model import faceclip as family  # noqa: E402
from faceclip.model.checkpoint import load  # noqa: E402
from faceclip.small import models as small  # noqa: E402
from faceclip.small.models import write_small_model  # noqa: E402

PROMPT = "A woman wearing a blue denim shirt and khaki pants, on a rocky desert plateau."
MOST_PEOPLE = 4


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
            start = time.process_time()
            person_conditioning(model, PROMPT, person)
            if run:
                times[count].append(time.process_time() - start)
    for count, seconds in times.items():
        print(f"{count} references, one prompt: {figures(seconds, times[1])}", flush=True)


def hundred(runs: int) -> None:
    """A hundred references of a prompt of six rows, by the small encoder: a few at a time, against all in one pass."""
    model = load(small.FOLDER / small.ENCODER_FILE)
    crops = torch.rand(100, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    person = make_person(model.encode_identity(crops), list(crops), min_similarity=-1.0)[0]
    text, times, peaks = "in a park with tall old trees, " * 44, {"few": [], "all": []}, {}

    def encode(few: bool) -> torch.Tensor:
        if few:
            return person_conditioning(model, text, person, long_prompt="continue").embeddings
        family.ROWS_AT_ONCE, rows = 10**6, family.ROWS_AT_ONCE
        joint = model.encode_prompt([text] * 100, person.identity, alone=True, long_prompt="continue")
        family.ROWS_AT_ONCE = rows
        return joint.embeddings.mean(0)[None]

    for run in range(runs + 1):
        for name in times:  # the bounded one first: what a process once held it keeps
            start = time.process_time()
            encode(name == "few")
            if run:
                times[name].append(time.process_time() - start)
            peaks.setdefault(name, own_peak_gb())
    for name, peak in peaks.items():
        print(f"100 references x 6 rows, {name} at a time: {peak:.2f} GB at most, {figures(times[name], times['all'])}")


def people(runs: int, steps: int, threads: int) -> None:
    base = Path(tempfile.mkdtemp(prefix="faceclip-people-"))
    (base / "models").mkdir()
    write_small_model(base / "models")
    host = {"comfyui": Path(os.environ["COMFYUI_PATH"]), "base": base, "threads": threads, "timeout": 7200}
    _, *turns = run_in_host(time_steps, SMALL_FILES, MOST_PEOPLE, runs + 1, steps, **host)
    cases = [f"{count} people" for count in range(MOST_PEOPLE + 1)]
    cases += ["2 people, region_only, scene_share 0.2", "2 people, region_only, scene_share 0"]
    for number, case in enumerate(cases):
        seconds, alone = ([turn[one][0] for turn in turns] for one in (number, 0))
        rows = turns[0][number][1]
        print(f"{case}, one step: {rows:g} rows of the UNet, {figures(seconds, alone)}", flush=True)


def figures(seconds: list[float], base: list[float]) -> str:
    """The median, and the median of the ratios to the base case of the same turn."""
    ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
    return f"{statistics.median(seconds) * 1000:.0f} ms of CPU time, {ratio:.2f}x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--part", choices=("people", "references"), help="one of the two alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, CPU", flush=True)
    if args.part != "references":
        if os.environ.get("COMFYUI_PATH"):
            people(args.runs, args.steps, args.threads)
        else:
            print("COMFYUI_PATH names no ComfyUI: the cost of people is left out")
    if args.part != "people":
        references(args.runs)
        hundred(args.runs)


if __name__ == "__main__":
    main()
