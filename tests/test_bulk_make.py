"""`make`: rows of a table and grids, checked whole, made on a made-up ComfyUI, killed, resumed, sorted out, shown."""

import argparse
import csv
import functools
import hashlib
import io
import json
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fsspec
import pytest
from fake_comfy import png

from faceclip.bulk import command, names, page
from faceclip.bulk.jobs import read_jobs
from faceclip.bulk.problems import Failures
from faceclip.bulk.servers import ServerWorker
from faceclip.bulk.servers_check import choose
from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server_errors import ServerError
from faceclip.errors import InputError

RUN = """
import sys
from faceclip.__main__ import main
sys.exit(main(["make", *sys.argv[1:]]))
"""


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(("ada.png", "bob.png", "bob2.png")):
        (tmp_path / name).write_bytes(png(number + 1))
    return tmp_path


def table(folder: Path, rows: list[dict], name="jobs.jsonl") -> Path:
    path = folder / name
    if path.suffix == ".csv":
        heads = list(dict.fromkeys(key for row in rows for key in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, heads, restval="")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(buffer.getvalue(), "utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def planned(path, *options):
    return list(read_jobs(path, *options).planned())


def make(jobs, out, *options) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(jobs), "--out", str(out), *map(str, options)]))


ROWS = [
    {"photo": "ada.png", "prompt": "a chef", "seeds": 2, "settings.steps": 30, "name": "ada/at work"},
    {"references": ["bob.png", "bob2.png"], "prompt": "on a beach", "negative": "rain", "seed": 7, "size": "512x640"},
    {"photo": "ada.png", "prompt": "asleep", "width": 256, "height": 320, "strength": 0.5},
]


def test_rows_become_prompts(photos):
    first, second, beach, asleep = planned(table(photos, ROWS))
    assert [one.name for one in (first, second, beach, asleep)] == [
        "ada/at work_0",
        "ada/at work_1",
        "000002_7",
        "000003_0",
    ]
    assert first.api["settings"]["inputs"]["steps"] == 30 and first.api["positive"]["inputs"]["text"] == "a chef"
    assert (first.api["sample"]["inputs"]["noise_seed"], second.api["sample"]["inputs"]["noise_seed"]) == (0, 1)
    assert first.key != second.key and {**second.api, "sample": first.api["sample"]} == first.api
    assert beach.api["identity"]["inputs"]["face_2"] == ["align_2", 0] and len(beach.uploads) == 2
    assert beach.api["negative"]["inputs"]["text"] == "rain"
    assert [beach.api["settings"]["inputs"][side] for side in ("width", "height")] == [512, 640]
    assert asleep.api["positive"]["inputs"]["strength"] == 0.5 and asleep.of == 1 and first.of == 2
    assert asleep.facts["identity"]["from"][0].endswith("ada.png") and asleep.facts["row"] == 3


def test_a_spreadsheet_says_the_same_as_lines_of_json(photos):
    rows = [{**row, "references": ";".join(row["references"])} if "references" in row else row for row in ROWS]
    sheet = planned(table(photos, rows, "jobs.csv"))
    assert [(one.key, one.api) for one in sheet] == [(one.key, one.api) for one in planned(table(photos, ROWS))]
    assert [one.place for one in sheet[:3]] == ["jobs.csv, row 2", "jobs.csv, row 2", "jobs.csv, row 3"]


def test_a_file_of_settings_names_a_table(photos):
    table(photos, ROWS[:1], "people.csv")
    (photos / "jobs.toml").write_text(
        'rows = "people.csv"\n[settings]\nwidth = 64\nheight = 96\nfiles = {FaceCLIPLoader = "small.safetensors"}\n'
    )
    one, _ = planned(photos / "jobs.toml")
    assert one.api["faceclip"]["inputs"]["file"] == "small.safetensors" and one.api["settings"]["inputs"]["width"] == 64


def test_a_grid_of_cases(photos):
    (photos / "grid.toml").write_text(
        'prompts = ["a chef"]\nseeds = [1, 2]\n[settings]\nvalues = {"settings.steps" = 9}\n'
        '[[identities]]\npictures = "ada.png"\n[[cases]]\nname = "short"\nvalues = {"settings.steps" = 4}\n'
        "[[cases]]\nwidth = 128\nheight = 192\n"
    )
    found = planned(photos / "grid.toml")
    assert [one.name for one in found] == ["short/ada/p1_1", "short/ada/p1_2", "c2/ada/p1_1", "c2/ada/p1_2"]
    assert [one.api["settings"]["inputs"]["steps"] for one in found] == [4, 4, 9, 9]
    assert [one.group for one in found] == [0, 0, 1, 1]


WRONG = [
    ({"photo": "ada.png"}, "prompt: missing"),
    ({"photo": "nobody.png", "prompt": "x"}, "nobody.png given, but there is no such file"),
    ({"photo": "jobs.jsonl", "prompt": "x"}, "which is no picture"),
    ({"prompt": "x"}, "photo, references or identity: one of the three"),
    ({"photo": "ada.png", "prompt": "x", "promt": "y"}, "no field 'promt'; did you mean 'prompt'?"),
    ({"photo": "ada.png", "prompt": "x", "seeds": 0}, "seeds: 0 given, at least 1"),
    ({"photo": "ada.png", "prompt": "x", "strength": 3.5}, "strength: 3.5 given, at most 2"),
    ({"photo": "ada.png", "prompt": "x", "size": "large"}, "width x height such as 864x1152"),
    ({"photo": "ada.png", "prompt": "x", "settings.stesp": 3}, "node 'settings' of portrait.json has: width"),
    ({"photo": "ada.png", "prompt": "x", "settings.steps": "many"}, "settings.steps: 'many' given, a number wanted"),
    ({"photo": "ada.png", "prompt": "x", "sample.model": 3}, "sample.model: comes from another node"),
    ({"photo": "ada.png", "prompt": "x", "workflow": "none.json"}, "none.json given, but there is no such file"),
    ({"identity": "ada.png", "prompt": "x"}, "ada.png is no saved identity"),
    ({"references": ["ada.png"] * 5, "prompt": "x"}, "references: "),
]


def test_everything_is_checked_with_file_and_row(photos):
    path = table(photos, [row for row, _ in WRONG])
    path.write_text(path.read_text() + "not json\n[1]\n" + '{"prompt": 3}\n' * 10)
    with pytest.raises(InputError) as caught:
        read_jobs(path).check()
    lines = str(caught.value).splitlines()
    assert lines[0] == "26 rows cannot be made, the first 20:" and len(lines) == 21
    for number, (line, (_, words)) in enumerate(zip(lines[1:], WRONG, strict=False), 1):
        assert line.startswith(f"  jobs.jsonl, row {number}: ") and words in line, line
    assert "row 15: no JSON" in lines[15] and "row 16: [1] given, a table wanted" in lines[16], lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo,promt\na.png,x\n", "row 1: no field 'promt'"),
        ("photo,photo,prompt\n", "'photo' twice"),
        ("", "row 1: empty"),
        ("photo,prompt\n", "has no rows"),
        ("photo,prompt\nada.png,one, two\n", "row 2: 3 cells, but 2 columns"),
        ('photo,prompt\nada.png,"open', "cannot be read further"),
    ],
)
def test_a_broken_table_is_named(photos, text, words):
    (photos / "a.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_jobs(photos / "a.csv").check()


def test_two_pictures_never_share_a_name(photos):
    rows = [{"photo": "ada.png", "prompt": "x", "name": "One"}, {"photo": "ada.png", "prompt": "y", "name": "one"}]
    with pytest.raises(InputError, match=r"row 2: its picture would be named 'one_0', as another one"):
        read_jobs(table(photos, rows)).check()
    plan = read_jobs(table(photos, rows[:1] * 3)).check()
    assert (plan.total, plan.repeated) == (1, 2), "the same again is made once"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "etc/passwd_0"),
        ("/elsewhere/x", "elsewhere/x_0"),
        ("C:\\a\\b", "C_/a/b_0"),
        ("con/x", "con_/x_0"),
        ("a\u202eb\nc", "a_b_c_0"),
        ("...", "_0"),
        ("\u30a2\u30c0 \u2460", "\u30a2\u30c0 1_0"),
        ("x" * 300, "x" * 120),
    ],
)
def test_names_are_safe_on_every_system(photos, name, safe):
    rows = [{"photo": "ada.png", "prompt": "x", "name": name}]
    assert [one.name for one in planned(table(photos, rows))] == [safe]


def test_a_template_is_checked(photos):
    path = table(photos, ROWS[2:])
    (one,) = planned(path, "{identity}/{prompt}/{row:04}_{seed}")
    assert one.name == "ada/asleep/0001_0"
    for template, words in (("{nme}_{seed}", "names nme"), ("{name}", "share names"), ("{seed", "cannot be filled")):
        with pytest.raises(InputError, match=words):
            names.check_template(template)


def test_a_long_table_is_never_in_memory(photos):
    """More rows take no more memory, but for a few bytes each; benchmarks/bulk.py does it with 100 000."""
    peaks = []
    for count in (200, 1200):
        path = table(photos, [{"photo": "ada.png", "prompt": f"a chef {number}"} for number in range(count)])
        tracemalloc.start()
        assert read_jobs(path).check().total == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 1000 < 400, peaks


# --- making them


def test_rows_are_made_and_described(comfy, photos, tmp_path, capsys):
    servers, out = [comfy(), comfy()], tmp_path / "out"
    servers[0].hashes = servers[1].hashes = {"faceclip/face_clip_encoder.pt": "e" * 64}
    options = [part for server in servers for part in ("--server", server.url)]
    assert make(table(photos, ROWS), out, *options) == 0
    assert sum(len(server.prompts) for server in servers) == 4
    told = json.loads((out / "ada/at work_1.json").read_text("utf-8"))
    assert (out / "ada" / told["picture"]).is_file() and (told["width"], told["height"]) == (16, 16)
    assert (told["prompt"], told["seed"], told["row"], told["likeness"]) == ("a chef", 1, 1, None)
    assert told["models"]["faceclip/face_clip_encoder.pt"] == "e" * 64 and told["versions"]["faceclip"]
    assert told["identity"]["digests"] == [hashlib.sha256((photos / "ada.png").read_bytes()).hexdigest()[:20]]
    assert told["seconds"] >= 0 and told["server"] in {server.url for server in servers}
    assert "4 pictures made" in capsys.readouterr().out

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_*.*")}
    assert make(table(photos, ROWS), out, *options) == 0, "again"
    assert sum(len(server.prompts) for server in servers) == 4
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*_*.*")}
    assert len(shown(out)) == 4, "the page shows what is there already"
    (out / "000002_7.png").unlink()
    assert make(table(photos, ROWS), out, *options) == 0
    assert (out / "000002_7.png").is_file() and "1 pictures to make, 3 are there" in capsys.readouterr().out


def shown(out: Path) -> list[dict]:
    """What the page shows."""
    data = (out / page.DATA).read_text("utf-8").removeprefix("window.PICTURES = ").rstrip(";\n")
    return json.loads(data)["rows"]


def test_a_dry_run_makes_nothing(comfy, photos, tmp_path, capsys):
    server = comfy()
    assert make(table(photos, ROWS), tmp_path / "out", "--server", server.url, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "4 pictures of 3 rows" in text and f"{server.url}: ready" in text and "ada/at work_0: a chef" in text
    assert not server.prompts and not server.uploads and not (tmp_path / "out").exists()


def test_the_likest_seeds_stay(comfy, photos, tmp_path):
    server, out = comfy(), tmp_path / "out"
    server.likeness = lambda prompt: [0.1, [0.5, 0.9, 0.2, 0.7][prompt["sample"]["inputs"]["noise_seed"]]]
    path = table(photos, [{"photo": "ada.png", "prompt": "a chef", "seeds": 4}])
    options = ("--server", server.url, "--best", 2)
    assert make(path, out, *options) == 0
    assert sorted(one.name for one in out.glob("*.png")) == ["000001_1.png", "000001_3.png"]
    told = {one.stem[-1]: json.loads(one.read_text()) for one in out.glob("0*.json")}
    assert {seed: one["likeness"] for seed, one in told.items()} == {"0": 0.5, "1": 0.9, "2": 0.2, "3": 0.7}
    assert [seed for seed, one in sorted(told.items()) if one["picture"] is None] == ["0", "2"]
    assert server.prompts[0]["faceclip_likeness"]["inputs"]["identity"] == ["identity", 0]
    (out / "000001_0.png").write_bytes(png())  # as if killed between the two steps
    assert make(path, out, *options) == 0 and len(server.prompts) == 4, "what was sorted out is not made again"
    assert sorted(one.name for one in out.glob("*.png")) == ["000001_1.png", "000001_3.png"]
    with pytest.raises(InputError, match="was made with --best 2"):
        make(path, out, *options[:2])


def test_failures_are_told_by_reason(comfy, photos, tmp_path, capsys):
    from aiohttp import web

    server, out = comfy(), tmp_path / "out"
    usual = server.post_prompt

    async def refuse_chefs(request):
        body = await request.json()
        if body["prompt"]["positive"]["inputs"]["text"] == "a chef":
            return web.json_response({"error": {"message": "no chefs"}, "node_errors": {}}, status=400)
        return await usual(request)

    server.close()
    server = comfy(answers={"post_prompt": refuse_chefs})
    usual = server.post_prompt
    rows = [{"photo": "ada.png", "prompt": prompt} for prompt in ("x", "a chef", "y")]
    rows.append({**rows[1], "seed": 3})
    assert make(table(photos, rows), out, "--server", server.url, "--ahead", 1) == 1
    assert "2 x jobs.jsonl, row 2" in (text := capsys.readouterr().out) and "(also jobs.jsonl, row 4)" in text
    lines = [json.loads(line) for line in (out / command.FAILURES).read_text().splitlines()]
    assert [line["name"] for line in lines] == ["000002_0", "000004_3"] and "no chefs" in lines[0]["reason"]
    assert len(list(out.glob("*.png"))) == 2


def test_reasons_that_differ_in_numbers_are_one():
    failures = Failures()
    for number in range(5):
        failures.add(f"row {number}", "x", f"http://a:{number}: no face of {number} px in 'photo {number}'")
    failures.add("row 9", "x", "another")
    assert failures.summary().splitlines()[0].startswith("5 x row 0: http://a:0: no face") and failures.total == 6


def test_wrong_servers_are_refused_by_name(comfy, photos, tmp_path, capsys):
    good, other, old, ancient, gone = (comfy() for _ in range(5))
    other.hashes, old.version = {"vae/sdxl_vae.safetensors": "b" * 64}, "0.0.9"
    ancient.post_faceclip = None
    gone.close()
    options = [part for server in (good, other, old, gone) for part in ("--server", server.url)]
    assert make(table(photos, ROWS), tmp_path / "out", *options) == 0
    text = capsys.readouterr().out
    assert f"Left out: {other.url}: vae/sdxl_vae.safetensors is another file: SHA-256 bbbbbbbbbbbb" in text
    assert f"Left out: {old.url}: it has ComfyUI-FaceCLIP 0.0.9, wanted at least" in text
    assert f"Left out: {gone.url}: no answer" in text
    assert len(good.prompts) == 4 and not other.prompts and not old.prompts
    # Nor does a folder go on with other models than it began with.
    with pytest.raises(ServerError, match="the pictures that are there were made with aaaaaaaaaaaa"):
        make(table(photos, ROWS), tmp_path / "out", "--server", other.url)
    with pytest.raises(ServerError, match="it lacks faceclip/none.safetensors"):
        good.hashes = {"faceclip/none.safetensors": None}
        choose([good.url], ["faceclip/none.safetensors"])


def test_a_server_that_comes_back_as_another_makes_nothing(comfy, photos, tmp_path, capsys):
    """It breaks off, and answers again with another model file; the other server does the work."""
    changed, good = comfy(), comfy(seconds=0.02)
    changed.break_next = 1
    usual = changed.get_system_stats

    rows = [{"photo": "ada.png", "prompt": f"chef {number}"} for number in range(12)]
    made = changed._make

    async def change(name, socket):
        changed.hashes = {"vae/sdxl_vae.safetensors": "c" * 64}
        await made(name, socket)

    changed._make = change
    assert usual and make(table(photos, rows), tmp_path / "out", "--server", changed.url, "--server", good.url) == 0
    assert f"Given up: {changed.url} (vae/sdxl_vae.safetensors is another file" in capsys.readouterr().out
    assert len(changed.prompts) <= 2 and len(list((tmp_path / "out").glob("*.png"))) == 12


def test_what_the_network_dropped_is_not_made_twice(comfy, photos, tmp_path):
    server = comfy(seconds=0.05)
    server.drop_next = 2
    rows = [{"photo": "ada.png", "prompt": f"chef {number}"} for number in range(4)]
    assert make(table(photos, rows), tmp_path / "out", "--server", server.url) == 0
    assert len(server.prompts) == 4 and len(list((tmp_path / "out").glob("*.png"))) == 4


def test_a_slow_server_gets_less_and_one_that_returns_is_taken_again(comfy, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "ServerWorker", functools.partial(ServerWorker, patience=0.05))
    slow, second = comfy(seconds=0.2), comfy(seconds=0.02)
    made, begun = second._make, []

    async def leave_once(name, socket):
        begun.append(name)
        if len(begun) == 4:
            return await second.go_away(0.6)  # longer than anybody waits for it
        await made(name, socket)

    second._make = leave_once
    rows = [{"photo": "ada.png", "prompt": f"chef {number}"} for number in range(30)]
    assert make(table(photos, rows), tmp_path / "out", "--server", slow.url, "--server", second.url) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 30 and "Given up" not in capsys.readouterr().out
    assert len(begun) > 4 and len(second.prompts) > len(slow.prompts) > 0


def test_killed_at_any_moment_it_loses_nothing_and_makes_nothing_twice(comfy, photos, tmp_path):
    """Five kills of the command at random moments; the server goes on with what was queued."""
    draw, out = random.Random(15), tmp_path / "out"
    server = comfy(seconds=0.01)
    path = table(photos, [{"photo": "ada.png", "prompt": f"chef {n}", "seeds": 4} for n in range(30)])
    run = [sys.executable, "-c", RUN, str(path), "--out", str(out), "--server", server.url]
    environment = {"PYTHONPATH": str(PACK_ROOT), "PATH": ""}
    for _ in range(3):
        process = subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        there = len(server.prompts)
        while process.poll() is None and len(server.prompts) == there:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "are there already" in done.stdout
    assert len(list(out.glob("*.png"))) == len(list(out.glob("0*.json"))) == 120 == len(shown(out))
    keys = [json.dumps(prompt, sort_keys=True) for prompt in server.prompts]
    assert len(keys) == len(set(keys)) == 120, "no picture was made twice"
    assert not list(out.rglob("*.faceclip-partial"))


@pytest.mark.parametrize("scheme", ["memory://jobs", "file://{}"])
def test_jobs_and_pictures_at_an_address(comfy, photos, tmp_path, scheme):
    """fsspec's file system in memory, and the local one by its address; s3://, gs:// and hf:// are the same to us."""
    home = scheme.format(tmp_path / "bucket")
    fs, root = fsspec.url_to_fs(home)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/ada.png", (photos / "ada.png").read_bytes())
    fs.pipe_file(f"{root}/jobs.csv", b"photo,prompt,seeds\nada.png,a chef,3\n")
    server, out = comfy(), f"{home}/out"
    try:
        assert make(f"{home}/jobs.csv", out, "--server", server.url) == 0
        assert fs.cat_file(f"{root}/out/000002_1.png")[:4] == b"\x89PNG"
        assert json.loads(fs.cat_file(f"{root}/out/000002_1.json"))["prompt"] == "a chef"
        assert b"000002_2.png" in fs.cat_file(f"{root}/out/{page.DATA}")
        assert make(f"{home}/jobs.csv", out, "--server", server.url) == 0 and len(server.prompts) == 3
    finally:
        fs.rm(root, recursive=True)


def test_an_address_without_its_package_names_it(photos, tmp_path):
    with pytest.raises(Exception, match="(?i)s3fs"):
        make("s3://bucket/jobs.csv", tmp_path / "out", "--dry-run")
    with pytest.raises(InputError, match="no address that fsspec knows"):
        make("nosuch://bucket/jobs.csv", tmp_path / "out", "--dry-run")
