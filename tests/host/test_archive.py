"""What `comfy node publish` would upload to ComfyUI's registry: packed by comfy-cli, scanned, loaded, and used.

Everything is done with the files as they are here, committed or not, in a repository of their own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import ComfyServer
from faceclip.comfy.workflow import example, for_small_model
from faceclip.small.models import write_small_model

NAME = "comfyui-faceclip"  # what the manager calls the folder: the project's name
LARGEST = 16e6  # bytes; 11.5e6 are the small model and its pictures
TEXT = (".py", ".js", ".json", ".md", ".toml", ".txt", ".css", ".html")
CODE = (".py", ".js")
# The scanner is no public program. These are what publishers were told that it matched, and their neighbours; it looks
# for text, wherever it stands, in comments and words too.
FLAGGED = {
    "starts a process": (CODE, r"\bsubprocess\b|\bmultiprocessing\b|\bos\.(system|popen|exec\w*|spawn\w*|fork|kill)\b"),
    "reads or changes the environment": (CODE, r"\benviron\b|\bgetenv\b|\bputenv\b|\bprocess\.env\b"),
    "runs text as code": (CODE, r"(?<![\w.])(eval|exec|compile|__import__)\s*\(|\.eval\(\s*[^)\s]|\bnew Function\b"),
    "imports by name": (CODE, r"\bimportlib\.import_module\b|__import__"),
    "opens a connection": (
        TEXT,
        r"\brequests\.(get|post|put|patch|delete|head)\s*\(|\burllib\.request\b|\burlopen\b|\bhttp\.client\b"
        r"|\baiohttp\s*\.\s*ClientSession\b|\bsocket\.socket\b|\bftplib\b|\bsmtplib\b"
        r"|\.(connect|bind|create_connection|send|sendall|recv)\s*\(|\bgethostname\b|fetch\s*\(\s*[\"'`]https?:",
    ),
    "opens a database": (CODE, r"\bsqlite3?\b"),
    "reads a file as it is named": (CODE, r"\bPath\([^()]*\)\.read_(bytes|text)\s*\(|/etc/|\.ssh\b"),
    "hides what it does": (CODE, r"\bb(16|32|64|85)decode\b|\bmarshal\b|\bctypes\b|\bcryptography\b"),
    "takes rights or removes": (TEXT, r"\bsudo\b|\brm -rf\b|\bchmod\b"),
    "loads from a place that is no release": (CODE, r"raw\.githubusercontent\.com|pastebin|bit\.ly"),
}
needs_git = pytest.mark.skipif(not shutil.which("git"), reason="comfy-cli packs what git tracks, and git is not here")


def comfy(folder: Path, *arguments: str) -> str:
    pytest.importorskip("comfy_cli", reason="comfy-cli is not installed; `python -m tests` brings it")
    command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", "--no-enable-telemetry", *arguments]
    home = {"HOME": str(folder.parent), "XDG_CONFIG_HOME": str(folder.parent / "config"), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **home}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A repository of the files that git tracks here or would."""
    folder = tmp_path_factory.mktemp("registry") / "source"
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PACK_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (PACK_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACK_ROOT / name, folder / name)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def archive(source) -> Path:
    comfy(source, "node", "pack")
    return source / "node.zip"


@pytest.fixture(scope="module")
def base(archive, comfyui, tmp_path_factory) -> Path:
    """A base directory of ComfyUI with what was packed as its only custom node, and the small model."""
    base = tmp_path_factory.mktemp("from_the_registry")
    (base / "models").mkdir()
    with zipfile.ZipFile(archive) as file:
        file.extractall(base / "custom_nodes" / NAME)
    write_small_model(base / "models")
    return base


@pytest.fixture(scope="module")
def server(base, comfyui):
    """ComfyUI with the archive. To it a CPU build of ONNX Runtime seems to lie over the GPU build."""
    stand_in = base / "stand_in"
    for build in ("onnxruntime", "onnxruntime_gpu"):
        data = stand_in / f"{build}-1.20.0.dist-info"
        data.mkdir(parents=True)
        name = build.replace("_", "-")
        (data / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.20.0\n")
    (stand_in / "onnxruntime" / "capi").mkdir(parents=True)
    (stand_in / "onnxruntime" / "capi" / "build_and_package_info.py").write_text("package_name = 'onnxruntime'\n")
    with ComfyServer(comfyui, base, pack=None, environment={"PYTHONPATH": str(stand_in)}) as running:
        yield running


@needs_git
def test_the_archive_holds_what_the_nodes_need_and_no_more(archive, capsys):
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if not name.endswith("/")]
    with capsys.disabled():
        sys.stdout.write(f"\n{len(names)} files, {archive.stat().st_size / 1e6:.1f} MB\n")
    roots = {name.split("/")[0] for name in names}
    assert roots >= {"__init__.py", "nodes", "faceclip", "web", "workflows", "requirements.txt", "pyproject.toml"}
    assert roots >= {"README.md", "LICENSE"}
    assert not roots & {"tests", "benchmarks", "docs", ".ci", ".github", "install.py"}
    rooms = {name.split("/")[1] for name in names if name.startswith("faceclip/")}
    assert not rooms & {"train", "eval", "bulk", "comfy"}
    assert not [name for name in names if name.endswith("variables.py")]
    assert not [name for name in names if re.match(r"workflows/(layouts/|build)", name)]
    assert archive.stat().st_size < LARGEST


@needs_git
def test_comfy_cli_finds_nothing_to_say_against_it(source):
    said = comfy(source, "node", "validate")
    assert "All validation checks passed" in said
    assert "warning" not in said.lower() and "error" not in said.lower(), said


@needs_git
@pytest.mark.parametrize("kind", FLAGGED)
def test_nothing_in_it_is_what_the_scanner_flags(archive, kind):
    endings, pattern = FLAGGED[kind]
    found = []
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if name.endswith(endings) and name != "LICENSE":
                lines = file.read(name).decode("utf-8").splitlines()
                found += [f"{name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if re.search(pattern, line)]
    assert not found, "\n".join([f"It {kind}:", *found])


@needs_git
def test_the_icon_and_the_banner_are_here_and_of_a_size_that_the_registry_shows(source):
    from PIL import Image

    text = (source / "pyproject.toml").read_text("utf-8")
    for name, widest, tallest in (("Icon", 400, 400), ("Banner", 1680, 720)):
        address = re.search(rf'^{name} = "https://github\.com/[\w-]+/[\w-]+/raw/main/(.+)"$', text, re.MULTILINE)
        with Image.open(source / address.group(1)) as picture:
            assert picture.width <= widest and picture.height <= tallest
            assert name != "Banner" or picture.width * 9 == picture.height * 21
        assert (source / address.group(1)).stat().st_size < 300e3


@needs_git
def test_it_draws_a_portrait_in_a_real_comfyui(server, base, yunet_path):
    prompt = for_small_model("portrait", json.loads(example("portrait").read_text("utf-8")), steps=2)
    (base / "models" / "face_detection").mkdir(exist_ok=True)
    shutil.copy(yunet_path, base / "models" / "face_detection" / yunet_path.name)
    result = server.client.run(prompt)
    assert [image for image in result.images() if image["type"] == "output"]


@needs_git
def test_it_says_once_that_a_build_is_hidden_and_loads_whole(server):
    log = server.log_text()
    notices = [line for line in log.splitlines() if "hides onnxruntime-gpu" in line]
    assert len(notices) == 1 and '--no-deps --force-reinstall "onnxruntime-gpu' in notices[0]
    assert NAME in log and "IMPORT FAILED" not in log and "Traceback" not in log


@needs_git
def test_its_doctor_finds_the_comfyui_around_it(base, comfyui, yunet_path):
    pack = base / "custom_nodes" / NAME

    def faceclip(*arguments: str) -> subprocess.CompletedProcess:
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COMFYUI_PATH")}
        command = [sys.executable, "-m", "faceclip", *arguments]
        return subprocess.run(command, cwd=pack, env=kept, capture_output=True, text=True)

    report = faceclip("doctor")
    assert report.stdout.startswith("FaceCLIP doctor: ") and not report.stderr
    assert str(base / "models" / "faceclip") in report.stdout
    (base / "models" / "face_detection").mkdir(exist_ok=True)
    shutil.copy(yunet_path, base / "models" / "face_detection" / yunet_path.name)
    there = faceclip("download", "yunet")
    assert there.returncode == 0 and "is there already and is the published file" in there.stdout, there.stderr
    for command in ("demo", "train", "eval", "make", "prepare", "toy", "allow-detector"):
        left_out = faceclip(command)
        assert left_out.returncode == 1 and "Traceback" not in left_out.stderr
        assert f"this copy of FaceCLIP has no command {command}: " in left_out.stderr
