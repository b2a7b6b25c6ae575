"""One step with FaceCLIP's conditioning against the same UNet with the host's own text conditioning.

    COMFYUI_PATH=... python -m benchmarks.sampling [--runs 15] [--steps 5] [--side 512] [--threads 1]

The claim is 1.00: once a prompt is encoded, a face costs nothing. The small UNet in a real ComfyUI, guidance on; the
two take turns, first one and then the other begins. CPU time of the process; medians, and the median, the lowest and
the highest of the ratios within a turn.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "host")]  # a process inside the host belongs to the tests

from inprocess import run_in_host  # noqa: E402

from benchmarks.inside_steps import time_samplings  # noqa: E402
from faceclip.comfy.workflow import SMALL_FILES  # noqa: E402
from faceclip.small.models import write_small_model  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--side", type=int, default=512, help="of the picture, px")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not os.environ.get("COMFYUI_PATH"):
        sys.exit("COMFYUI_PATH names no ComfyUI")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models").mkdir()
        write_small_model(Path(folder) / "models")
        host = {"comfyui": Path(os.environ["COMFYUI_PATH"]), "base": Path(folder), "timeout": 7200}
        given = (SMALL_FILES, arguments.runs + 1, arguments.steps, arguments.side)
        _, *turns = run_in_host(time_samplings, *given, threads=arguments.threads, **host)
    ours, stock = ([turn[name] for turn in turns] for name in ("ours", "stock"))
    ratios = [turn["ours"] / turn["stock"] for turn in turns]
    print(f"{arguments.runs} turns, {arguments.side} px, load of the machine {os.getloadavg()[1]:.1f}")
    for name, seconds in (("ours", ours), ("stock", stock)):
        print(f"{name:5} {statistics.median(seconds) * 1000:.1f} ms of CPU time a step")
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"ratio {statistics.median(ratios):.2f} ({span}), of the fastest {min(ours) / min(stock):.2f}")


if __name__ == "__main__":
    main()
