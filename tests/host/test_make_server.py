"""`make` on a real ComfyUI with the small model: rows to pictures with likeness, and the page of ten thousand."""

import json
import subprocess
import sys
import time

from PIL import Image

from faceclip.bulk.page import Sheet
from faceclip.bulk.results import Entry
from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.workflow import for_small_model
from faceclip.files.remote import Folder
from faceclip.install.published import sha256
from faceclip.small import models as small


def test_rows_become_pictures_and_the_likest_stay(server, base_directory, yunet_name, tmp_path):
    api = json.loads((PACK_ROOT / "workflows" / "api" / "portrait.json").read_text("utf-8"))
    workflow = for_small_model("portrait", api, steps=2)
    (tmp_path / "small.json").write_text(json.dumps(workflow), "utf-8")
    (tmp_path / "jobs.toml").write_text('rows = "rows.csv"\n[settings]\nworkflow = "small.json"\n', "utf-8")
    photo = base_directory / "input" / "astronaut.png"
    rows = f"photo,prompt,seeds,name\n{photo},a smiling person,3,smiling\n{photo},a person at night,1,\n"
    (tmp_path / "rows.csv").write_text(rows, "utf-8")
    command = [sys.executable, "-m", "faceclip", "make", "jobs.toml", "--out", "out", "--server", server.url]
    environment = {"PYTHONPATH": str(PACK_ROOT), "PATH": ""}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run([*command, "--best", "1"], **options)
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = (tmp_path / "out").glob("smiling_*.png")
    told = [json.loads(path.read_text("utf-8")) for path in sorted((tmp_path / "out").glob("smiling_*.json"))]
    assert len(told) == 3 and all(-1 <= one["likeness"] <= 1 for one in told)
    assert max(told, key=lambda one: one["likeness"])["picture"] == kept.name
    encoder = base_directory / "models" / "faceclip" / small.ENCODER_FILE
    assert told[0]["models"][f"faceclip/{small.ENCODER_FILE}"] == sha256(encoder)
    with Image.open(kept) as picture:
        graph = json.loads(picture.info["prompt"])
        assert picture.size == (small.SIZE, small.SIZE) and graph["positive"]["inputs"]["text"] == "a smiling person"
    (tmp_path / "out" / "000003_0.png").unlink()
    again = subprocess.run([*command, "--best", "1"], **options)
    assert again.returncode == 0 and "1 pictures to make, 3 are there already" in again.stdout, again.stderr


def test_the_page_stays_usable_at_ten_thousand_pictures(chromium, tmp_path):
    Image.new("RGB", (64, 80), "teal").save(tmp_path / "one.png")
    sheet = Sheet()
    for number in range(10_000):
        facts = {"prompt": f"a chef {number}", "row": number, "seed": 0, "likeness": (number * 7919 % 10_000) / 10_000}
        sheet.add(Entry(f"{number:05}_0", "one.png", facts))
    assert sheet.write(Folder(tmp_path), "ten <thousand>")
    started = time.monotonic()
    chromium.get((tmp_path / "index.html").as_uri())
    run = chromium.execute_script
    first = 'return document.querySelector(\'.card[style*="left: 0px"][style*="top: 0px"] p\').textContent'
    assert "00000_0" in run(first) and run("return document.title") == "ten <thousand>"
    assert 0 < run("return document.querySelectorAll('.card').length") < 200
    run("window.scrollTo(0, document.body.scrollHeight); window.dispatchEvent(new Event('scroll'))")
    assert "09999_0" in run("return document.querySelector('main').textContent")
    run("const sort = document.getElementById('sort'); sort.value = 'likeness'; sort.dispatchEvent(new Event('input'))")
    assert run(first).startswith("1.000")
    run("const box = document.getElementById('find'); box.value = 'chef 777'; box.dispatchEvent(new Event('input'))")
    assert run("return document.getElementById('count').textContent") == "19 of 10000 pictures"
    assert time.monotonic() - started < 10
