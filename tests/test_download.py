"""`python -m faceclip download`, run as a process against a server on loopback."""

import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from hub import Hub
from writers import heed_ctrl_c

from faceclip.install import published

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

REPO = Path(__file__).resolve().parent.parent
ADDRESS = "/ByteDance/FaceCLIP/resolve/main/model/unet.pt"
# The client writes blocks of 10 MB: a part that is kept must be longer than one.
BLOCK, CONTENT = 10 * 2**20, bytes(range(256)) * (24 * 2**12)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
# The real command, with a small file in the place of the published UNet and, if asked for, a full disk.
STAND_IN = """
import dataclasses, json, os, shutil, sys
from faceclip.install import published
from faceclip.__main__ import main
stand_in = json.loads(os.environ["STAND_IN"])
free = stand_in.pop("free", None)
published.FILES["unet"] = dataclasses.replace(published.UNET, **stand_in)
if free is not None:
    shutil.disk_usage = lambda path: shutil._ntuple_diskusage(free, 0, free)
sys.exit(main(["download", *sys.argv[1:]]))
"""


@pytest.fixture
def models(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def target(models):
    return models / "diffusion_models" / "unet.pt"


@pytest.fixture
def hub():
    with Hub({ADDRESS: CONTENT}, DIGEST) as hub:
        yield hub


def settings(models, endpoint, free=None, **extra):
    stand_in = {"sha256": DIGEST, "size": len(CONTENT)} | ({} if free is None else {"free": free})
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    kept = {key: value for key, value in kept.items() if not key.lower().endswith("_proxy")}
    home = {"HF_HOME": str(models.parent / "hf"), "HF_ENDPOINT": endpoint, "STAND_IN": json.dumps(stand_in)}
    return kept | home | {"PYTHONPATH": str(REPO), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"} | extra


def command(models, *arguments):
    return [sys.executable, "-c", STAND_IN, *arguments, "--models", str(models)]


def run(hub, models, *arguments, yes=True, **extra):
    return subprocess.run(
        command(models, *(arguments or ["unet"]), *(["--yes"] if yes else [])),
        env=settings(models, hub.url, **extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def files(models):
    return sorted(str(path.relative_to(models)) for path in models.rglob("*") if path.is_file())


def partials(models):
    return list(models.rglob(".*.incomplete"))


def test_the_file_arrives_whole_and_is_not_fetched_twice(hub, models, target):
    done = run(hub, models)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == CONTENT and files(models) == ["diffusion_models/unet.pt"]
    for shown in (hub.url + ADDRESS, f"{len(CONTENT):,} bytes", published.UNET.licence, str(target), DIGEST):
        assert shown in done.stdout
    hub.asked.clear()
    again = run(hub, models)
    assert again.returncode == 0 and "is there already and is the published file" in again.stdout
    assert not hub.asked


def test_a_file_without_a_published_hash_is_checked_by_the_hubs(hub, models, target):
    unknown = {"STAND_IN": json.dumps({"sha256": None, "size": None})}
    done = run(hub, models, **unknown)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == CONTENT and f"SHA-256 {DIGEST} as the hub has it" in done.stdout
    target.write_bytes(b"another")
    again = run(hub, models, **unknown)
    assert again.returncode == 1 and f"wanted {DIGEST}" in again.stderr and target.read_bytes() == b"another"


def test_the_real_detector_arrives_under_its_published_hash(models, yunet_path):
    address = f"/{published.YUNET.repo}/resolve/main/{published.YUNET.path}"
    with Hub({address: yunet_path.read_bytes()}, published.YUNET.sha256) as hub:
        done = run(hub, models, "yunet")
    assert done.returncode == 0, done.stderr
    assert (models / "face_detection" / published.YUNET.name).read_bytes() == yunet_path.read_bytes()


def test_a_broken_connection_is_taken_up_in_the_same_run(hub, models, target):
    hub.break_at = 15 * 2**20
    done = run(hub, models)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == CONTENT
    assert hub.ranges == [None, f"bytes={BLOCK}-"]


def test_a_broken_off_download_is_taken_up_by_the_next_run(hub, models, target):
    hub.break_at, hub.fail_after_break = 15 * 2**20, True
    done = run(hub, models)
    assert done.returncode == 1 and "500" in done.stderr and "What arrived is kept" in done.stderr
    (partial,) = partials(models)
    assert not target.exists() and partial.read_bytes() == CONTENT[:BLOCK]
    hub.fail_after_break = False
    hub.asked.clear()
    done = run(hub, models)
    assert done.returncode == 0, done.stderr
    assert f"{BLOCK:,} of them here from last time" in done.stdout
    assert hub.ranges == [f"bytes={BLOCK}-"]
    assert target.read_bytes() == CONTENT and files(models) == ["diffusion_models/unet.pt"]


def test_a_slow_server_is_waited_for(hub, models, target):
    hub.slow = 0.2
    started = time.monotonic()
    done = run(hub, models)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started > 0.2 * len(CONTENT) // 2**20
    assert target.read_bytes() == CONTENT and hub.ranges == [None]


def test_a_server_that_falls_silent_is_given_up_and_the_part_kept(hub, models, target):
    hub.silent_at = 15 * 2**20
    done = run(hub, models, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.returncode == 1 and "What arrived is kept" in done.stderr and "Traceback" not in done.stderr
    (partial,) = partials(models)
    kept = partial.read_bytes()
    assert not target.exists() and len(kept) >= BLOCK and CONTENT.startswith(kept)
    hub.silent_at = None
    assert run(hub, models).returncode == 0 and target.read_bytes() == CONTENT
    assert files(models) == ["diffusion_models/unet.pt"]


def test_a_server_without_an_end_is_left_at_the_size_that_it_announced(hub, models):
    hub.endless = True
    done = run(hub, models)
    assert done.returncode == 1 and not files(models) and "Traceback" not in done.stderr
    assert f"gives more than the {len(CONTENT):,} bytes that it announced" in done.stderr


def test_a_wrong_content_is_removed(hub, models):
    wrong = CONTENT[:-1] + b"!"
    hub.files[ADDRESS] = wrong
    done = run(hub, models)
    assert done.returncode == 1 and not files(models)
    assert DIGEST in done.stderr and hashlib.sha256(wrong).hexdigest() in done.stderr


@pytest.mark.parametrize("change", ["hash", "size"])
def test_another_version_is_refused_before_the_download(hub, models, change):
    if change == "hash":
        hub.etag = "a" * 64
    else:
        hub.files[ADDRESS] = CONTENT[:-1]
    done = run(hub, models)
    assert done.returncode == 1 and not files(models) and not hub.ranges
    seen, wanted = ("a" * 64, DIGEST) if change == "hash" else (f"{len(CONTENT) - 1:,}", f"{len(CONTENT):,}")
    assert f"is {seen}" in done.stderr and f"wanted {wanted}" in done.stderr


def start_on_terminal(hub, models, *arguments):
    """The command with a terminal for all three streams: (process, the terminal's other end)."""
    pty = pytest.importorskip("pty", reason="needs a terminal that a program can drive")
    import fcntl
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))  # born 0 wide: room for no bar
    try:
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        env = settings(models, hub.url)
        asked = command(models, "unet", *arguments)
        process = subprocess.Popen(asked, env=env, start_new_session=True, preexec_fn=heed_ctrl_c, **streams)
    finally:
        os.close(theirs)
    os.set_blocking(ours, False)
    return process, ours


def read_until(process, terminal, wanted, seconds=30):
    """What the terminal shows, until `wanted` (a pattern) is in it or the process ends."""
    shown, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except BlockingIOError:
            if process.poll() is not None:
                break
            time.sleep(0.02)
        except OSError:  # the other end was closed
            break
        if wanted and re.search(wanted, shown):
            break
    return shown


def test_ctrl_c_leaves_a_part_that_the_next_run_takes_up(hub, models, target):
    hub.pause_at = 15 * 2**20
    process, terminal = start_on_terminal(hub, models, "--yes")
    try:
        shown = read_until(process, terminal, r"unet\.pt: +42%")
        assert re.search(r"unet\.pt: +42%", shown), shown
        assert not target.exists() and len(partials(models)) == 1
        process.send_signal(signal.SIGINT)
        shown = read_until(process, terminal, None)
        assert process.wait(20) == 130, shown
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert "What arrived is kept" in shown and "Traceback" not in shown
    (partial,) = partials(models)
    assert not target.exists() and partial.read_bytes() == CONTENT[:BLOCK]
    hub.pause_at = None
    hub.asked.clear()
    done = run(hub, models)
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [f"bytes={BLOCK}-"] and target.read_bytes() == CONTENT
    assert files(models) == ["diffusion_models/unet.pt"]


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_it_asks_in_a_terminal(hub, models, target, answer):
    process, terminal = start_on_terminal(hub, models)
    try:
        shown = read_until(process, terminal, r"\[y/N\]")
        assert published.UNET.licence in shown and f"{len(CONTENT):,} bytes" in shown
        assert not hub.ranges
        os.write(terminal, f"{answer}\n".encode())
        shown = read_until(process, terminal, None)
        assert process.wait(20) == (0 if answer == "y" else 1), shown
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert files(models) == (["diffusion_models/unet.pt"] if answer == "y" else [])
    assert answer == "y" or "was not downloaded" in shown


def test_without_a_terminal_it_wants_yes(hub, models):
    done = run(hub, models, yes=False)
    assert done.returncode == 1 and "--yes" in done.stderr and not hub.ranges and not files(models)


def test_another_file_of_that_name_is_replaced_only_by_force(hub, models, target):
    target.parent.mkdir()
    target.write_bytes(b"cut short")
    done = run(hub, models)
    assert done.returncode == 1 and "--force" in done.stderr and DIGEST in done.stderr
    assert hashlib.sha256(b"cut short").hexdigest() in done.stderr and target.read_bytes() == b"cut short"
    hub.etag = "unknown"
    hub.files[ADDRESS] = CONTENT[:-1] + b"!"
    assert run(hub, models, "unet", "--force").returncode == 1
    assert target.read_bytes() == b"cut short", "the old file went before the new one was checked"
    hub.files[ADDRESS] = CONTENT
    done = run(hub, models, "unet", "--force")
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == CONTENT and files(models) == ["diffusion_models/unet.pt"]


def test_a_part_longer_than_the_file_is_not_used(hub, models, target):
    target.parent.mkdir()
    target.with_name(f".unet.pt.{DIGEST[:12]}.incomplete").write_bytes(CONTENT + b"more")
    done = run(hub, models)
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [None] and files(models) == ["diffusion_models/unet.pt"]


def test_two_commands_do_not_write_into_one_file(hub, models, target):
    target.parent.mkdir()
    partial = target.with_name(f".unet.pt.{DIGEST[:12]}.incomplete")
    partial.touch()  # as another one has it that is just about to write
    with FileLock(partial.with_suffix(".lock")):
        done = run(hub, models)
    assert done.returncode == 1 and "Another download" in done.stderr and not hub.ranges
    assert partial.exists()


def test_a_full_disk_is_said_before_the_download(hub, models):
    done = run(hub, models, free=1000)
    assert done.returncode == 1 and "1,000 bytes free" in done.stderr and f"wanted {len(CONTENT):,}" in done.stderr
    assert not hub.ranges and not files(models)


def test_offline_mode_is_honoured(hub, models):
    done = run(hub, models, HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "HF_HUB_OFFLINE" in done.stderr and "Traceback" not in done.stderr
    assert not hub.asked and not files(models)


def test_a_missing_file_is_said(hub, models):
    hub.files.clear()
    done = run(hub, models)
    assert done.returncode == 1 and "404" in done.stderr and hub.url + ADDRESS in done.stderr and not files(models)


def test_a_dead_server_is_said(models):
    with Hub({}, DIGEST) as hub:
        pass
    done = run(hub, models)
    assert done.returncode == 1 and "Check the connection" in done.stderr and "Traceback" not in done.stderr


def test_a_wrong_name_is_said(hub, models):
    done = run(hub, models, "clip")
    assert done.returncode == 2 and "clip is none of encoder, unet, vae, yunet" in done.stderr and not hub.asked


@pytest.mark.parametrize(
    ("wanted", "listed", "used"),
    [
        ("unet.pt", ["a.safetensors", "unet.pt"], "unet.pt"),
        ("unet.pt", ["faceclip_sdxl_unet.safetensors"], "faceclip_sdxl_unet.safetensors"),
        ("unet.pt", ["unet.safetensors", "FaceCLIP/unet.pt"], "FaceCLIP/unet.pt"),
        ("faceclip_sdxl_unet.safetensors", ["FaceCLIP\\unet.pt"], "FaceCLIP\\unet.pt"),
        ("face_clip_encoder.pt", ["unet.pt", "face_clip_encoder.safetensors"], "face_clip_encoder.safetensors"),
        ("unet.pt", ["sdxl_unet.safetensors", "my_unet.pt"], None),
        ("flux.safetensors", ["models/flux.safetensors"], None),
    ],
)
def test_a_published_model_is_known_under_its_converted_name_and_in_subfolders(wanted, listed, used):
    assert published.same_model(wanted, listed) == used


def test_every_published_file_has_a_folder(models):
    for name, file in published.FILES.items():
        with Hub({f"/{file.repo}/resolve/main/{file.path}": b"nothing of it"}, "0" * 64) as hub:
            done = run(hub, models, name)
        # Without a published hash the hub's is taken, and what arrives is not what that says.
        known = "" if file.sha256 else "published "
        assert done.returncode == 1 and f"is not the {known}{file.name}" in done.stderr, done.stderr


def test_with_a_stand_in_for_fetching_facet5_comes_only_when_it_is_named(monkeypatch, models):
    """The whole of a default run is 8 GB, so nothing is fetched here; which files would be is the point."""
    from faceclip.__main__ import main
    from faceclip.install import download

    fetched = []
    monkeypatch.setattr(download, "fetch", lambda file, *_: fetched.append(file.name) or True)
    siblings = ["face_t5_encoder.pt", "dit.pt", "ae.safetensors"]
    assert main(["download", "--yes", "--models", str(models)]) == 0
    assert "unet.pt" in fetched and not set(siblings) & set(fetched)
    assert main(["download", "--yes", "--models", str(models), "t5-encoder", "dit", "flux-vae"]) == 0
    assert fetched[-3:] == siblings
    assert "CC BY-NC 4.0" in published.DIT.licence and "FLUX.1-dev's own" in published.DIT.licence
