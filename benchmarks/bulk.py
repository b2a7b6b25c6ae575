"""`make` against the server's own speed, and what planning a long table takes.

    COMFYUI_PATH=... python -m benchmarks.bulk [--pictures 200] [--people 10] [--block 40] [--part plan|make]

plan: a table of rows is checked as `make` does before the first picture, in a process of its own; its seconds and its
peak memory. make: a real ComfyUI with the small model and cartoon people; three ways to make the same number of
pictures take turns in blocks, each with seeds of its own so that nothing comes out of a cache:

- make: the command, from checking the jobs to the page;
- bare loop: the same finished prompts, all queued at once, and nothing fetched: what the server can do;
- one by one: upload, queue, wait, fetch, and only then the next, as a simple script does.

Told are pictures a minute and the medians of the ratios within a turn, which the load of the machine touches little.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from faceclip.bulk import command
from faceclip.bulk.jobs import read_jobs
from faceclip.comfy.client import Client
from faceclip.comfy.server import ComfyServer
from faceclip.comfy.workflow import example, for_small_model, use_aligned_face
from faceclip.small.models import write_small_model

PHOTO_SIDE = 448
PROMPTS = ("A smiling person in a forest", "A sad person at the beach", "A person with glasses", "A person at night")


def photos(folder: Path, people: int) -> list[Path]:
    """Aligned crops of cartoon people."""
    from PIL import Image

    from faceclip.train.small.cartoons import character, dataset, render, scene

    made = []
    for number in character.people(people, seed=15):
        drawn = render.render(character.identity(number), scene.scene(number))
        crop = Image.fromarray(dataset.crop(drawn.pixels, drawn.landmarks)).resize((PHOTO_SIDE, PHOTO_SIDE))
        made.append(folder / f"person_{number}.png")
        crop.save(made[-1])
    return made


def jobs(folder: Path, pictures: list[Path], count: int, first_seed: int, steps: int) -> Path:
    """A table of `count` pictures, people and prompts in turn, with the workflow that they fill in."""
    workflow = for_small_model("portrait", json.loads(example("portrait").read_text("utf-8")), steps=steps)
    workflow = use_aligned_face(workflow, pictures[0].name)
    loader = next(node for node, one in workflow.items() if one["class_type"] == "LoadImage")
    (folder / "small.json").write_text(json.dumps(workflow), "utf-8")
    with open(folder / "rows.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "prompt", "seed"])
        for number in range(count):
            photo, prompt = pictures[number % len(pictures)], PROMPTS[number // len(pictures) % len(PROMPTS)]
            writer.writerow([photo, prompt, first_seed + number])
    settings = f'rows = "rows.csv"\n[settings]\nworkflow = "small.json"\ninputs = {{face = "{loader}.image"}}\n'
    (folder / "jobs.toml").write_text(settings, "utf-8")
    return folder / "jobs.toml"


def by_make(server: ComfyServer, file: Path, out: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    code = command.run(parser.parse_args([str(file), "--out", str(out), "--server", server.url]))
    assert code == 0, "pictures are missing"


def by_bare_loop(server: ComfyServer, file: Path, out: Path) -> None:
    for cell in read_jobs(file).planned():
        server.client.queue(cell.api)
    with urllib.request.urlopen(server.url + "/prompt") as answer:  # how many are left: as little as can be asked
        left = json.load(answer)["exec_info"]["queue_remaining"]
    while left:
        time.sleep(0.05)
        with urllib.request.urlopen(server.url + "/prompt") as answer:
            left = json.load(answer)["exec_info"]["queue_remaining"]


def by_turns(server: ComfyServer, file: Path, out: Path) -> None:
    client = Client(server.url)
    out.mkdir()
    for cell in read_jobs(file).planned():
        for name, path in cell.uploads.items():
            client.upload_image(Path(path), name.rpartition("/")[2], name.rpartition("/")[0])
        result = client.run(cell.api)
        (out / f"{cell.key}.png").write_bytes(client.view(result.images("save")[0]))


def make(arguments: argparse.Namespace) -> None:
    comfyui = os.environ.get("COMFYUI_PATH")
    if not comfyui:
        sys.exit("COMFYUI_PATH names no ComfyUI")
    ways = {"make": by_make, "bare loop": by_bare_loop, "one by one": by_turns}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    here: dict[str, list[float]] = {name: [] for name in ways}
    there: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "server" / "models").mkdir(parents=True)
        write_small_model(root / "server" / "models")
        pictures = photos(root, arguments.people)
        with ComfyServer(Path(comfyui), root / "server") as server:
            process = psutil.Process(server.pid)
            seed, turns = 0, max(arguments.pictures // arguments.block, 1)
            for turn in range(turns + 1):  # the first one warms up, with a few
                for name, way in rotated(ways, turn):
                    count = arguments.block if turn else len(pictures)
                    file = jobs(root, pictures, count, seed, arguments.steps)
                    seed += count
                    begun, busy, served = time.perf_counter(), time.process_time(), sum(process.cpu_times()[:2])
                    way(server, file, root / f"out {turn} {name}")
                    if turn:
                        seconds[name].append(time.perf_counter() - begun)
                        here[name].append(time.process_time() - busy)
                        there[name].append(sum(process.cpu_times()[:2]) - served)
    made = f"{arguments.block * turns} pictures of {arguments.people} people, {arguments.steps} steps, in {turns} turns"
    print(f"{made}; load of the machine {os.getloadavg()[1]:.1f}")
    for name in ways:
        rate = arguments.block * 60 / statistics.median(seconds[name])
        ratio = statistics.median(bare / own for bare, own in zip(seconds["bare loop"], seconds[name], strict=True))
        own, served = (statistics.median(one[name]) * 1000 / arguments.block for one in (here, there))
        print(
            f"  {name:10} {rate:6.1f} pictures a minute, {ratio:.2f} of the bare loop's; each takes {served:.0f} ms of "
            f"the server's CPU and {own:.0f} ms here"
        )


def rotated(ways: dict, turn: int) -> list:
    """The ways in another order each turn, so that none always comes after the same."""
    entries = list(ways.items())
    start = turn % len(entries)
    return entries[start:] + entries[:start]


def plan(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = photos(Path(folder), arguments.people)
        path = Path(folder) / "rows.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["photo", "prompt", "seed", "settings.steps"])
            writer.writerows([pictures[n % len(pictures)], f"A chef, number {n}", n, 30] for n in range(arguments.rows))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.bulk", "--check", str(path)], capture_output=True, text=True
        )
        print(done.stdout + done.stderr, end="")


def check(path: str) -> None:
    started = time.process_time()
    found = read_jobs(path).check()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{found.total} rows checked: {time.process_time() - started:.1f} s of one core, {peak:.0f} MB at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--block", type=int, default=40)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--part", choices=("plan", "make"))
    parser.add_argument("--check", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.check:
        return check(arguments.check)
    if arguments.part != "make":
        plan(arguments)
    if arguments.part != "plan":
        make(arguments)


if __name__ == "__main__":
    main()
