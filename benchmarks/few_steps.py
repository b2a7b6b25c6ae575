"""What a picture of the small model costs by each recipe of FaceCLIP Sampling Settings, side by side in one run.

    python -m benchmarks.few_steps [--runs 5] [--threads 1] [--side 512]

A real ComfyUI (COMFYUI_PATH), sampling alone: the UNet with guidance where the recipe has one. What is timed is the CPU
time of the process, so that what else the machine does counts little. The recipes take turns, and the first turn warms
up. Then the negative prompt with guidance 1 told and not told. Prints medians. No few-step LoRA is put on: one that is
costs nothing in a step.
"""

import argparse
import os
import platform
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks import inside_few_steps
from benchmarks.people import run_in_host
from faceclip.comfy.workflow import SMALL_FILES
from faceclip.small.models import write_small_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, default=512, help="of the picture, in px")
    args = parser.parse_args()
    print(f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}, CPU", flush=True)
    base = Path(tempfile.mkdtemp(prefix="faceclip-few-steps-"))
    write_small_model(base / "models")
    host = {"comfyui": Path(os.environ["COMFYUI_PATH"]), "base": base, "threads": args.threads, "timeout": 3600}
    _, *turns = run_in_host(inside_few_steps.time_recipes, SMALL_FILES, args.side, args.runs + 1, **host)
    published = statistics.median(turn["published"] for turn in turns)
    for name in turns[0]:
        seconds = statistics.median(turn[name] for turn in turns)
        print(f"{name:24} {1000 * seconds:7.0f} ms of CPU time, 1/{published / seconds:.1f} of the published")


if __name__ == "__main__":
    main()
