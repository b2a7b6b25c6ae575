"""Every command finds the host's folders alike: by COMFYUI_PATH, --models and extra_model_paths.yaml."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faceclip.comfy import demo
from faceclip.errors import InputError, ModelNotFoundError
from faceclip.eval import benchmark
from faceclip.install import places, published
from faceclip.train.prepare import command

REPO = Path(__file__).resolve().parent.parent
YAML = "mine:\n  base_path: ../far\n  is_default: {0}\n  face_detection: |\n    a\n    detectors\n"


class Host:
    """A ComfyUI with the real YuNet in one of its folders, and the options by which a command is told of it."""

    def __init__(self, root, yunet, way):
        self.root, self.way = root / "ComfyUI", way
        for folder in ("comfy", "models", "custom_nodes"):
            (self.root / folder).mkdir(parents=True)
        for name in ("main.py", "requirements.txt"):
            (self.root / name).touch()
        self.folder = self.root / "models" / "face_detection"
        if way == "extra_model_paths.yaml":
            (self.root / way).write_text(YAML.format("false"))
            self.folder = root / "far" / "detectors"
        self.folder.mkdir(parents=True)
        self.yunet = self.folder / published.YUNET.name
        shutil.copy(yunet, self.yunet)
        self.options = ["--models", str(self.root / "models")] if way == "--models" else []
        self.variables = {} if way in ("--models", "custom_nodes") else {"COMFYUI_PATH": str(self.root)}

    def run(self, *arguments) -> subprocess.CompletedProcess:
        """The command as a process; for `custom_nodes`, from a pack in there."""
        folder = REPO
        if self.way == "custom_nodes":
            folder = self.root / "custom_nodes" / "pack"
            folder.mkdir(exist_ok=True)
            if not (folder / "faceclip").exists():
                (folder / "faceclip").symlink_to(REPO / "faceclip", target_is_directory=True)
        kept = {key: value for key, value in os.environ.items() if key not in ("COMFYUI_PATH", "FACECLIP_YUNET")}
        command = [sys.executable, "-m", "faceclip", *map(str, arguments), *self.options]
        return subprocess.run(command, cwd=folder, env=kept | self.variables, capture_output=True, text=True)


WAYS = ["COMFYUI_PATH", "--models", "extra_model_paths.yaml"]


@pytest.fixture
def host(request, tmp_path, yunet_path, monkeypatch):
    made = Host(tmp_path, yunet_path, request.param)
    for name in ("COMFYUI_PATH", "FACECLIP_YUNET"):
        monkeypatch.delenv(name, raising=False)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    return made


def parse(module, *arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args([str(one) for one in arguments])


@pytest.mark.parametrize("host", [*WAYS, "custom_nodes"], indirect=True)
def test_doctor(host):
    assert f"[ok]      {host.yunet.name}: {host.yunet}" in host.run("doctor").stdout


@pytest.mark.parametrize("host", [*WAYS, "custom_nodes"], indirect=True)
def test_download_finds_what_is_there(host):
    done = host.run("download", "yunet")
    assert done.returncode == 0 and f"{host.yunet} is there already" in done.stdout, done.stderr


@pytest.mark.parametrize("host", ["extra_model_paths.yaml"], indirect=True)
def test_download_puts_a_file_where_the_host_looks_first(host):
    host.yunet.unlink()
    assert places.find_folders()["face_detection"][0] == host.root / "models" / "face_detection"
    (host.root / "extra_model_paths.yaml").write_text(YAML.format("true"))
    assert places.find_folders()["face_detection"][0] == host.folder


@pytest.mark.parametrize("host", WAYS, indirect=True)
def test_prepare(host, tmp_path):
    arguments = parse(command, tmp_path, tmp_path / "out", *host.options)
    assert command.detector_of(arguments) == host.yunet


@pytest.mark.parametrize("host", WAYS, indirect=True)
def test_eval(host):
    assert Path(benchmark.detector_of(parse(benchmark, "grid.toml", *host.options)).path) == host.yunet


@pytest.mark.parametrize("host", WAYS, indirect=True)
def test_demo(host, tmp_path):
    assert demo.furnish(tmp_path / "base", parse(demo, *host.options).models)
    assert (tmp_path / "base" / "models" / "face_detection" / host.yunet.name).is_file()


@pytest.mark.parametrize("host", ["COMFYUI_PATH"], indirect=True)
def test_a_detector_that_is_named_itself_comes_first(host, yunet_path, monkeypatch, tmp_path):
    monkeypatch.setenv("FACECLIP_YUNET", str(yunet_path))
    assert places.find_detector() == yunet_path
    monkeypatch.setenv("FACECLIP_YUNET", str(tmp_path / "none.onnx"))
    with pytest.raises(InputError, match="none.onnx, which is no file"):
        places.find_detector()


def test_what_is_wrong_with_the_way_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("FACECLIP_YUNET", raising=False)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(InputError, match="COMFYUI_PATH is .*, which is no ComfyUI: it has no main.py, requirements"):
        places.find_folders()
    monkeypatch.delenv("COMFYUI_PATH")
    with pytest.raises(ModelNotFoundError, match="No ComfyUI is known.*--models DIR"):
        places.find_folders()
    with pytest.raises(InputError, match="modles is not a folder"):
        places.find_folders([tmp_path / "modles"])
    with pytest.raises(ModelNotFoundError, match=r"face_detection  \(does not exist\)[\s\S]*FACECLIP_YUNET"):
        places.find_detector([tmp_path])


def test_extra_model_paths_are_read_as_the_host_reads_them(tmp_path):
    pytest.importorskip("yaml", reason="PyYAML comes with ComfyUI")
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text(
        "mine:\n  base_path: models\n  is_default: true\n  faceclip: |\n    a\n    b\n  unet: u\nempty:\n"
        "other:\n  face_detection: /far/away\n  loras: l\n"
    )
    base = tmp_path / "models"
    assert places.read_extra_paths(path) == [
        ("faceclip", base / "a", True),
        ("faceclip", base / "b", True),
        ("diffusion_models", base / "u", True),
        ("face_detection", Path(os.path.normpath(tmp_path / "/far/away")), False),
    ]
    path.write_text("- not\n- a mapping\n")
    with pytest.raises(InputError, match="can't be read.*--models DIR"):
        places.read_extra_paths(path)
