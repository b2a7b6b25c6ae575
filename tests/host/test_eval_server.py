"""A whole benchmark on the small model in a real ComfyUI: killed, resumed, measured, shown."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from faceclip.bulk.grid import read_grid
from faceclip.comfy.environment import PACK_ROOT

COMMAND = """
import argparse, sys
from faceclip.eval import benchmark as run
parser = argparse.ArgumentParser()
run.add_arguments(parser)
sys.exit(run.run(parser.parse_args()))
"""
GRID = """
name = "tiny"
prompts = ["a chef in a kitchen", {name = "beach", text = "on a beach at noon"}]
seeds = [7]

[[identities]]
name = "two photos"
pictures = ["astronaut.png", "again.png"]

[[identities]]
identity = "kept for eval.safetensors"

[settings]
width = 128
height = 128
files = {FaceCLIPLoader = "faceclip_tiny.safetensors", FaceCLIPUNETLoader = "faceclip_sdxl_tiny.safetensors", \
VAELoader = "faceclip_tiny_vae.safetensors"}
values = {"settings.steps" = 3}
"""


@pytest.fixture(scope="module")
def bench(base_directory, tmp_path_factory):
    """The benchmark file, its photos, and an identity that the server has as well."""
    import torch
    from astronaut import astronaut_face_png
    from PIL import Image

    import faceclip
    from faceclip.bulk.store import read_picture
    from faceclip.identity.file import save_person
    from faceclip.identity.person import make_person
    from faceclip.model.checkpoint import face_encoder_hash

    folder = tmp_path_factory.mktemp("bench")
    shutil.copy(base_directory / "input" / "astronaut.png", folder)
    Image.open(folder / "astronaut.png").point(lambda value: int(value * 0.98)).save(folder / "again.png")
    model = faceclip.load(base_directory / "models" / "faceclip" / "faceclip_tiny.safetensors")
    crop = torch.from_numpy(read_picture(astronaut_face_png())).permute(2, 0, 1)[None].float() / 255
    person, _ = make_person(model.encode_identity(crop), list(crop))
    models = base_directory / "models" / "faceclip_identities"
    models.mkdir(exist_ok=True)
    saved = save_person(replace(person, encoder=face_encoder_hash(model)), models, "kept for eval", "replace")
    shutil.copy(saved, folder)
    (folder / "bench.toml").write_text(GRID, "utf-8")
    return folder / "bench.toml"


def start(bench, out, server, *options):
    command = [sys.executable, "-c", COMMAND, str(bench), "--out", str(out), "--server", server.url, *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(PACK_ROOT)}
    return subprocess.Popen(command, cwd=out.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_grid_is_made_measured_and_resumed(bench, server, base_directory, yunet_name, tmp_path):
    out = tmp_path / "out"
    cells = read_grid(bench).cells
    pictures = [out / "pictures" / f"{cell.key}.png" for cell in cells]
    before = set((base_directory / "output").iterdir())
    process = start(bench, out, server)
    while process.poll() is None and not any(path.is_file() for path in pictures):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    made = {path: path.stat().st_mtime_ns for path in pictures if path.is_file()}
    assert 1 <= len(made) < len(cells) == 4 and not (out / "index.html").exists()

    model = base_directory / "models" / "faceclip" / "faceclip_tiny.safetensors"
    detector = base_directory / "models" / "face_detection" / yunet_name
    process = start(bench, out, server, "--faceclip", model, "--detector", detector, "--device", "cpu")
    text = process.communicate(timeout=500)[0].decode("utf-8", "replace")
    assert process.returncode == 0, text
    assert f"{4 - len(made)} pictures to make, {len(made)} are there already" in text
    assert all(path.stat().st_mtime_ns == time_made for path, time_made in made.items())
    from PIL import Image

    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (128, 128)
    assert len({path.read_bytes() for path in pictures}) == 4
    rows = list(csv.DictReader((out / "results.csv").open(encoding="utf-8", newline="")))
    assert len(rows) == 4 + 2 + 2 + 1 and all(row["similarity_faceclip"] and row["faces"] for row in rows)
    page = (out / "index.html").read_text("utf-8")
    assert page.count("<img") == 4 + 2 and all(f'src="pictures/{path.name}"' in page for path in pictures)
    assert set((base_directory / "output").iterdir()) == before, "the server's output folder is left as it was"
