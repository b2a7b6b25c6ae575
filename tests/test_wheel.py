"""The package that pip builds and installs: a library and a `faceclip` command that work from any folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import faceclip
from faceclip.bulk import ray_pool
from faceclip.comfy.environment import PACK_REQUIREMENTS, PACK_ROOT, python_of, read_requirements
from faceclip.errors import DependencyError
from faceclip.eval import distribution
from faceclip.files.toml import read_toml
from faceclip.install import extras
from faceclip.sampling.unet_config import SDXL
from faceclip.train import diffusion, shard_reader, towers

PROJECT = PACK_ROOT / "pyproject.toml"
needs_hatchling = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import hatchling, editables"], capture_output=True).returncode != 0,
    reason="hatchling and editables are not installed; `python -m tests` brings them",
)


def run(command: list, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    dropped = ("PYTHONPATH", "COMFYUI_PATH", "FACECLIP_YUNET")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    environment = {**kept, "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def pip(*arguments, **variables: str) -> None:
    done = run([sys.executable, "-m", "pip", *arguments], PACK_ROOT, **variables)
    assert done.returncode == 0, done.stdout + done.stderr


def new_environment(folder: Path) -> Path:
    """The Python of an environment without any package, not even pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return python_of(folder)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment into which pip installed the wheel, and nothing that it requires."""
    folder = tmp_path_factory.mktemp("installed")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ".")
    python = new_environment(folder / "environment")
    (wheel,) = folder.glob("*.whl")
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    return python


def site_packages(python: Path | str) -> str:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def command(python: Path) -> Path:
    return python.with_name("faceclip.exe" if sys.platform == "win32" else "faceclip")


@needs_hatchling
def test_the_command_works_from_any_folder(python, tmp_path):
    listing = run([command(python), "--help"], tmp_path)
    assert listing.returncode == 0 and "doctor" in listing.stdout and "download" in listing.stdout, listing.stderr
    assert listing.stdout.startswith("usage: faceclip COMMAND")
    models = tmp_path / "models"
    models.mkdir()
    done = run([command(python), "doctor", "--models", models], tmp_path)
    assert done.stdout.startswith("FaceCLIP doctor: ") and not done.stderr
    assert "torch: not installed" in done.stdout


@needs_hatchling
def test_what_a_bare_installation_lacks_is_named_with_the_line_that_brings_it(python, tmp_path):
    done = run([command(python), "convert", "a.pt", "b.safetensors"], tmp_path)
    assert done.returncode == 1 and f'"{python}" -m pip install "comfyui-faceclip"' in done.stderr
    assert "Traceback" not in done.stderr
    done = run([command(python), "demo"], tmp_path, FACECLIP_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1 and "Start it in a clone of the repository" in done.stderr
    assert not (tmp_path / "cache").exists()


@needs_hatchling
def test_the_library_and_its_files_are_whole(python, tmp_path):
    """With this environment's packages, and the wheel's faceclip."""
    code = (
        "import json, faceclip\n"
        "from faceclip.comfy.workflow import example\n"
        "from faceclip.bulk.grid import PORTRAIT\n"
        "from faceclip.small import models\n"
        "from faceclip.small.pictures import cartoons\n"
        "model = faceclip.load(models.FOLDER / models.ENCODER_FILE)\n"
        "print(json.dumps([faceclip.__file__, len(cartoons()), example('two_people').is_file(), PORTRAIT.is_file(),\n"
        "    type(model).__name__]))\n"
    )
    done = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=site_packages(python))
    assert done.returncode == 0, done.stderr
    file, *found = json.loads(done.stdout)
    assert Path(file).is_relative_to(site_packages(python))
    assert found == [5, True, True, "FaceCLIP"]
    files = {path.relative_to(PACK_ROOT) for path in (PACK_ROOT / "faceclip").rglob("*") if path.is_file()}
    files = {path for path in files if "__pycache__" not in path.parts}
    missing = {path for path in files if not Path(site_packages(python), path).is_file()}
    assert not missing
    assert not Path(site_packages(python), "nodes").exists() and not Path(site_packages(python), "tests").exists()


@needs_hatchling
def test_an_editable_one_is_this_checkout_and_shows_nothing_but_the_library(tmp_path):
    """The checkout's nodes/ on sys.path would stand before ComfyUI's own nodes.py."""
    python = new_environment(tmp_path / "environment")
    backend = {"PYTHONPATH": site_packages(sys.executable)}  # hatchling, which builds it, and editables
    options = ("--no-deps", "--no-index", "--no-build-isolation")
    pip("--python", python, "install", *options, "--editable", PACK_ROOT, **backend)
    code = "import importlib.util, faceclip; print(faceclip.__file__, importlib.util.find_spec('nodes'))"
    done = run([python, "-c", code], tmp_path, **backend)
    assert done.stdout.split() == [str(PACK_ROOT / "faceclip" / "__init__.py"), "None"], done.stderr
    assert run([command(python), "--help"], tmp_path, **backend).returncode == 0


def test_versions_and_requirements_are_the_same_everywhere():
    project = read_toml(PROJECT)["project"]
    assert project["version"] == faceclip.__version__
    plain = [line.replace("'", '"') for line in project["dependencies"]]
    assert plain.pop(0).startswith("torch>="), "which ComfyUI brings"
    assert plain == read_requirements(PACK_REQUIREMENTS), "the same lines, in the order that counts"


def test_extras_are_read_without_a_toml_reader():
    project = read_toml(PROJECT)["project"]
    assert extras.requirements_of_the_nodes() == project["dependencies"]
    named = project["optional-dependencies"]
    assert {"train", "eval", "bulk", "ray", "test", "dev"} <= set(named)
    assert extras.requirements("train") == named["train"]
    everything = extras.requirements("dev")
    assert set(everything) >= {*named["train"], *named["eval"]} and not any(
        "comfyui-faceclip" in one for one in everything
    )


@pytest.mark.parametrize(
    ("module", "extra"),
    [("accelerate.utils", "train"), ("torchmetrics", "eval"), ("torch_fidelity", "eval"), ("webdataset", "train")],
)
def test_a_package_belongs_to_the_extra_that_brings_it(module, extra):
    assert extras.extra_of(module) == extra


@pytest.mark.parametrize("module", ["torch", "cv2", "regex", "numpy", "no_such_package"])
def test_what_the_nodes_need_belongs_to_no_extra(module):
    assert extras.extra_of(module) is None


def test_a_command_that_lacks_a_package_names_the_extra(tmp_path):
    """As in the demo's environment, which has what the nodes need and no more."""
    (tmp_path / "accelerate.py").write_text("raise ModuleNotFoundError(\"No module named 'x'\", name='accelerate')\n")
    paths = os.pathsep.join([str(tmp_path), str(PACK_ROOT)])
    done = run([sys.executable, "-m", "faceclip", "eval"], tmp_path, PYTHONPATH=paths)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the package accelerate is not installed" in done.stderr
    assert f'extra "eval": "{sys.executable}" -m pip install -e "{PACK_ROOT}[eval]"' in done.stderr


@pytest.mark.parametrize(
    ("package", "call", "extra"),
    [
        ("diffusers", lambda: diffusion.new_unet(SDXL), "train"),
        ("webdataset", lambda: shard_reader.expand(["shard-{0..1}.tar"]), "train"),
        ("open_clip", lambda: towers.load_clip("clip.safetensors"), "train"),
        ("torchmetrics.image.fid", lambda: distribution.distances([], [], None), "eval"),
        ("ray", lambda: ray_pool.connected("local").__enter__(), "ray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_lacks_a_package_names_the_extra(monkeypatch, package, call, extra):
    for known in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, package, None)  # which makes its import fail
    with pytest.raises(DependencyError) as failed:
        call()
    assert extras.install_line(extra) in str(failed.value) and package.partition(".")[0] in str(failed.value)
    assert f"[{extra}]" in extras.install_line(extra)
