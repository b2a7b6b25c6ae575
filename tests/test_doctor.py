"""The doctor, on installations that are broken on purpose.

The broken ones are folders of stand-in packages (with their package data), the only ones that a Python started with
``-S`` sees; files are real ones, made small, cut short or altered.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from bounds import bounded

from faceclip.comfy.environment import PACK_ROOT
from faceclip.doctor import model_files, software
from faceclip.doctor.command import host_version
from faceclip.doctor.examine import examine
from faceclip.doctor.finding import OK, PROBLEM, WARN, report
from faceclip.install import places, published

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
ONNXRUNTIME = "__version__ = '{0}'\ndef get_available_providers():\n    return {1}\n"
PACKAGES = {
    "torch": ("torch", "2.11.0", "__version__ = '2.11.0'\n__all__ = []\nfrom . import version, cuda\n"),
    "cv2": ("opencv-python", "4.12.0", "__version__ = '4.12.0'\nclass FaceDetectorYN: pass\n"),
    "safetensors": ("safetensors", "0.6.0", ""),
    "tokenizers": ("tokenizers", "0.22.0", ""),
    "regex": ("regex", "2025.9.1", ""),
    "ftfy": ("ftfy", "6.3.1", ""),
    "insightface": ("insightface", "0.7.3", ""),
}


class Installation:
    """Stand-in packages and a ComfyUI with model files; everything is well until a test breaks it."""

    def __init__(self, folder):
        self.site, self.host = folder / "site", folder / "ComfyUI"
        for module, (package, version, source) in PACKAGES.items():
            self.add(module, package, version, source)
        (self.site / "torch" / "version.py").write_text("cuda = None\n")
        (self.site / "torch" / "cuda.py").write_text("is_available = lambda: False\ndevice_count = lambda: 0\n")
        self.add_onnxruntime("onnxruntime", "1.32.0", [CPU])
        (self.host / "comfy").mkdir(parents=True)
        (self.host / "main.py").touch()
        (self.host / "requirements.txt").touch()
        (self.host / "comfyui_version.py").write_text('__version__ = "0.3.75"\n')
        self.models = self.host / "models"
        self.encoder = self.models / "faceclip" / "mine.safetensors"
        self.unet = self.models / "diffusion_models" / "mine.safetensors"
        self.yunet = self.models / "face_detection" / "face_detection_yunet_other.onnx"
        for path in (self.encoder, self.unet, self.yunet):
            path.parent.mkdir(parents=True)
        self.encoder.write_bytes(safetensors("token_embedding.weight"))
        self.unet.write_bytes(safetensors("conv_in.weight"))
        self.yunet.write_bytes(b"\x08\x06" + bytes(100))
        published.allowance(self.yunet).write_text(published.sha256(self.yunet))

    def add(self, module, package, version, source):
        (self.site / module).mkdir(parents=True, exist_ok=True)
        (self.site / module / "__init__.py").write_text(source)
        self.add_data(package, version)

    def add_data(self, package, version):
        data = self.site / f"{package.replace('-', '_')}-{version}.dist-info"
        data.mkdir()
        (data / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")

    def add_onnxruntime(self, build, version, providers):
        self.add("onnxruntime", build, version, ONNXRUNTIME.format(version, providers))
        (self.site / "onnxruntime" / "capi").mkdir(exist_ok=True)
        (self.site / "onnxruntime" / "capi" / "build_and_package_info.py").write_text(f"package_name = '{build}'\n")

    def examine(self, *arguments) -> tuple[int, str]:
        """What the command ends with and prints. Whatever is broken, each problem comes with one line that mends it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"PYTHONPATH": str(self.site), "COMFYUI_PATH": str(self.host)}
        command = [sys.executable, "-S", "-m", "faceclip", "doctor", *map(str, arguments)]
        done = subprocess.run(command, cwd=PACK_ROOT, env=environment, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        assert not done.stderr and lines[0].startswith("FaceCLIP doctor: "), done.stdout + done.stderr
        problems = [number for number, line in enumerate(lines) if line.startswith("[PROBLEM]")]
        assert all(lines[number + 1].startswith("          fix: ") for number in problems), done.stdout
        assert done.returncode == bool(problems)
        return len(problems), done.stdout


def safetensors(key: str, metadata: dict[str, str] | None = None) -> bytes:
    tensors = {key: {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}
    header = json.dumps(({"__metadata__": metadata} if metadata else {}) | tensors).encode()
    return len(header).to_bytes(8, "little") + header + bytes(256)


def fix_of(text: str, topic: str) -> str:
    """The line that mends the problem of this topic."""
    found = re.search(rf"^\[PROBLEM\] {re.escape(topic)}: .*\n +fix: (.*)$", text, re.MULTILINE)
    assert found, text
    return found.group(1)


@pytest.fixture
def installation(tmp_path):
    return Installation(tmp_path)


def test_a_good_installation_has_no_problem(installation):
    problems, text = installation.examine()
    assert problems == 0
    assert "FaceCLIP doctor: no problems" in text
    for part in ("ComfyUI: 0.3.75", "torch: 2.11.0", "onnxruntime 1.32.0, can run on", "4.12.0, with FaceDetectorYN"):
        assert part in text
    for path in (installation.encoder, installation.unet, installation.yunet):
        assert f"[ok]      {path.name}: {path}" in text


def test_both_onnxruntimes_as_stand_ins_the_one_for_the_cpu_in_front(installation):
    installation.add_data("onnxruntime-gpu", "1.31.1")
    problems, text = installation.examine()
    assert problems == 1 and "onnxruntime 1.32.0 hides onnxruntime-gpu 1.31.1" in text
    assert fix_of(text, "onnxruntime").endswith('-m pip install --no-deps --force-reinstall "onnxruntime-gpu==1.31.1"')


def test_both_onnxruntimes_as_stand_ins_the_right_one_in_front(installation):
    installation.add_onnxruntime("onnxruntime-gpu", "1.31.1", [CUDA, CPU])
    problems, text = installation.examine()
    assert problems == 0 and "(installed: onnxruntime 1.32.0, onnxruntime-gpu 1.31.1)" in text


def test_an_onnxruntime_that_breaks_on_import(installation):
    (installation.site / "onnxruntime" / "__init__.py").write_text("raise OSError('DLL load failed\\nwhile loading')")
    problems, text = installation.examine()
    assert problems == 1 and "cannot be imported: DLL load failed while loading" in text
    assert "onnxruntime==1.32.0" in fix_of(text, "onnxruntime")


def test_a_torch_too_old_to_read_a_pt_safely(installation):
    installation.add("torch", "torch", "2.5.1", PACKAGES["torch"][2].replace("2.11.0", "2.5.1"))
    (installation.site / "torch" / "version.py").write_text("cuda = None\n")
    (installation.site / "torch" / "cuda.py").write_text("is_available = lambda: False\ndevice_count = lambda: 0\n")
    problems, text = installation.examine()
    assert problems == 1 and "2.5.1, which is too old: 2.6 or newer" in text


def test_torch_that_cannot_be_imported(installation):
    (installation.site / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13 is missing')")
    (installation.site / "insightface" / "__init__.py").write_text("import torch")
    problems, text = installation.examine()
    assert problems == 1 and "ImportError: libcudart.so.13 is missing" in text
    assert fix_of(text, "torch").startswith("Run this with ComfyUI's own Python")


def test_no_package_at_all(installation, tmp_path):
    installation.site = tmp_path / "empty"
    problems, text = installation.examine()
    assert problems == 6  # torch, OpenCV, safetensors, three for tokens; neither insightface nor onnxruntime
    assert fix_of(text, "ftfy").endswith("-m pip install ftfy")
    assert "[note]    insightface: not installed" in text and "[note]    onnxruntime: not installed" in text


def test_an_opencv_too_old_for_yunet_and_one_that_misses_a_library(installation):
    source = installation.site / "cv2" / "__init__.py"
    source.write_text("__version__ = '4.5.1'")
    assert "opencv-python>=4.8" in fix_of(installation.examine()[1], "OpenCV")
    source.write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    assert fix_of(installation.examine()[1], "OpenCV").endswith('--no-deps "opencv-python-headless==4.12.0"')


def test_an_opencv_that_hides_the_one_another_pack_needs(installation):
    """What install.py once mended: insightface requires opencv-python by name, and it lies over opencv-contrib."""
    installation.add_data("opencv-contrib-python", "4.11.0")
    problems, text = installation.examine()
    assert problems == 0 and "it hides opencv-contrib-python 4.11.0, which another pack needs" in text
    fix = re.search(r"^\[note\] +OpenCV: .*\n +fix: (.*)$", text, re.MULTILINE).group(1)
    assert fix.endswith('-m pip install --force-reinstall --no-deps "opencv-contrib-python==4.11.0"')
    with open(installation.site / "cv2" / "__init__.py", "a") as source:
        source.write("ximgproc = None\n")  # only the contrib builds have it
    assert "fix:" not in installation.examine()[1]


def test_an_opencv_whose_folder_another_build_took_with_it(installation):
    """pip install opencv-python does nothing there: its package data is still in place."""
    (installation.site / "cv2" / "__init__.py").unlink()
    (installation.site / "cv2").rmdir()
    problems, text = installation.examine()
    assert problems == 1 and fix_of(text, "OpenCV").endswith('--force-reinstall --no-deps "opencv-python==4.12.0"')


@pytest.mark.parametrize("version", ['__version__ = "0.3.74"\n', None])
def test_an_old_host(installation, version):
    path = installation.host / "comfyui_version.py"
    path.write_text(version) if version else path.unlink()
    assert host_version(installation.host) == ("0.3.74" if version else "")
    problems, text = installation.examine()
    assert problems == 1 and "too old: 0.3.75 or newer" in text
    assert fix_of(text, "ComfyUI").startswith("Update ComfyUI")


def test_the_oldest_host_is_the_one_the_pack_names():
    assert f'requires-comfyui = ">={software.MINIMUM_HOST}"' in (PACK_ROOT / "pyproject.toml").read_text("utf-8")
    numbers = software.MINIMUM_HOST.replace(".", ", ")
    assert f"MINIMUM_HOST = ({numbers})" in (PACK_ROOT / "__init__.py").read_text("utf-8")


def test_missing_files_are_named_with_address_licence_and_folder(installation):
    for path in (installation.encoder, installation.unet, installation.yunet):
        path.unlink()
    installation.unet.with_name("flux.safetensors").write_bytes(safetensors("double_blocks.0.weight"))
    problems, text = installation.examine()
    assert problems == 3
    for file in (published.ENCODER, published.UNET, published.YUNET):
        fix = fix_of(text, file.name)
        assert published.download_command(file) in fix
        assert file.url in fix and file.licence in fix and str(installation.models / file.folder) in fix
    assert "flux" not in text, "another pack's model is not the doctor's business"


def test_truncated_files(installation):
    whole = installation.unet.read_bytes()
    installation.unet.write_bytes(whole[:-100])
    installation.encoder.unlink()
    cut = installation.encoder.with_suffix(".pt")
    with zipfile.ZipFile(cut, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
    assert model_files.find_damage(cut) is None
    cut.write_bytes(cut.read_bytes()[:-40])
    yunet = installation.yunet.with_name(published.YUNET.name)
    yunet.write_bytes(b"\x08\x06" + bytes(1000))
    problems, text = installation.examine()
    assert problems == 3
    assert f"is truncated: {len(whole) - 100} of {len(whole)} bytes" in text
    assert "mine.pt is truncated" in text and "has 1002 bytes, the published file 232589" in text
    assert fix_of(text, "mine.pt").startswith(f'Delete "{cut}" and get face_clip_encoder.pt again')


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (safetensors("a")[:20], "is truncated or damaged"),
        (safetensors("a") + b"more", "is 4 bytes too long"),
        (b"garbage, and more of it", "is no model file"),
    ],
)
def test_what_is_not_a_whole_model_file(tmp_path, data, said):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert said in model_files.find_damage(path)
    path.write_bytes(safetensors("a"))
    assert model_files.find_damage(path) is None


def test_a_file_of_the_right_size_with_a_wrong_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "UNET", replace(published.UNET, size=1000))  # not 5 GB
    unets = replace(places.FOLDERS["diffusion_models"], published=published.UNET)
    monkeypatch.setattr(places, "FOLDERS", {"diffusion_models": unets})
    wrong = tmp_path / published.UNET.name
    wrong.write_bytes(b"\x80\x02".ljust(1000, b"\0"))
    _, found = model_files.check_files({"diffusion_models": [str(tmp_path)]}, False)
    assert found.state == OK and "hash not checked" in found.text, "reading gigabytes is for those who ask"
    _, found = model_files.check_files({"diffusion_models": [str(tmp_path)]}, True)
    assert found.state == PROBLEM and f"is not the published {published.UNET.sha256}" in found.text
    assert published.UNET.url in found.fix


def test_a_detector_that_the_nodes_would_not_open_is_told_without_being_asked(installation):
    wrong = installation.yunet.with_name(published.YUNET.name)
    wrong.write_bytes(b"\x08\x06".ljust(published.YUNET.size, b"\0"))
    problems, text = installation.examine()
    assert problems == 1 and f"is not the published {published.YUNET.sha256}" in text
    assert published.YUNET.url in fix_of(text, wrong.name)
    assert f'python -m faceclip allow-detector "{wrong}"' in fix_of(text, wrong.name)
    assert f"allowed by {installation.yunet.name}.allowed" in text


def test_the_published_hash_is_recognised(installation, yunet_path):
    (installation.yunet.with_name(published.YUNET.name)).write_bytes(yunet_path.read_bytes())
    assert "SHA-256 as published" in installation.examine("--hash")[1]


def test_a_cancel_while_hashing_goes_through(tmp_path):
    path = tmp_path / published.YUNET.name
    path.write_bytes(bytes(published.YUNET.size))

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model_files.check_files({"face_detection": [str(tmp_path)]}, True, cancel)


def test_models_names_other_folders(installation, tmp_path):
    problems, text = installation.examine("--models", tmp_path / "a", "--models", installation.models)
    assert problems == 0
    assert f"{tmp_path / 'a' / 'faceclip'} (does not exist), {installation.models / 'faceclip'}" in text


def test_no_comfyui_anywhere(installation):
    (installation.host / "main.py").unlink()
    text = installation.examine()[1]
    assert fix_of(text, "models").startswith("Name the folder: --models")


def test_insightface_packs(tmp_path):
    pack = tmp_path / "models" / "antelopev2"
    pack.mkdir(parents=True)
    (pack / "genderage.onnx").write_bytes(b"\x08\x06")

    def look():
        (found,) = [
            one for one in model_files.check_files({"insightface": [str(tmp_path)]}, False) if "pack" in one.topic
        ]
        return found

    assert "the detector is not there" in look().text
    (pack / "scrfd_10g_bnkps.onnx").write_bytes(b"\x08\x06")
    assert look().state == OK
    (pack / "scrfd_10g_bnkps.onnx").write_bytes(b"<html>")
    assert look().state == PROBLEM and str(pack) in look().fix


def test_saved_identities_are_listed_and_the_unusable_ones_told_apart(installation):
    good = {"kind": "faceclip_identity", "version": "1", "shares": "[0.5, 0.5]", "references": "2", "encoder": "e"}
    good["created_by"] = "ComfyUI-FaceCLIP 0.0.1"
    folder = installation.models / "faceclip_identities"
    folder.mkdir()
    written = {
        "Zoë": good,
        "newer": {**good, "version": "2", "created_by": "ComfyUI-FaceCLIP 9.9"},
        "shares": {**good, "shares": "[0.5]"},
        "other": {},
        "cut": good,
    }
    for name, metadata in written.items():
        (folder / f"{name}.safetensors").write_bytes(safetensors("thumbnails", metadata))
    cut = folder / "cut.safetensors"
    cut.write_bytes(cut.read_bytes()[:-9])
    problems, text = installation.examine()
    assert problems == 3 and f"folder faceclip_identities: {folder}" in text
    path = folder / "Zoë.safetensors"
    assert f"[ok]      identity Zoë: {path}, references: 2, made by ComfyUI-FaceCLIP 0.0.1" in text
    assert "has format version 2, this pack reads 1. It was made by ComfyUI-FaceCLIP 9.9" in text
    assert fix_of(text, "identity newer") == "Update ComfyUI-FaceCLIP."
    assert "cut.safetensors is truncated" in text
    for name in ("cut", "shares"):
        assert fix_of(text, f"identity {name}").startswith(f'Delete "{folder / name}.safetensors"')
    assert f"[note]    identity other: {folder / 'other.safetensors'} is no saved identity" in text


def test_this_python_is_examined_without_an_error():
    findings = examine("0.3.75", {})
    topics = [finding.topic for finding in findings]
    assert {"ComfyUI", "Python", "torch", "onnxruntime", "OpenCV", "insightface", "RAM"} <= set(topics)
    bad = [finding for finding in findings if finding.state == PROBLEM]
    assert all(finding.fix and "\n" not in finding.fix + finding.text for finding in bad)
    assert report(findings).count("\n") >= len(findings)


# ---- folders that were filled to hurt: nothing in them ends the doctor, keeps it waiting, or speaks for it ----


def put_header(path, header, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(4))
    return path


HEADERS = {
    "deep": b'{"a":' + b"[" * 300_000,
    "long number": b'{"a":{"data_offsets":[0,' + b"9" * 300_000 + b"]}}",
    "list": b"[1]",
    "no offsets": {"a": {"dtype": "F32"}},
    "words": {"a": {"dtype": "F32", "shape": [1], "data_offsets": ["x", "y"]}},
    "mixed": {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]},
    },
    "nothing": {"a": None},
    "metadata": {"__metadata__": [1, 2]},
    "metadata of numbers": {"__metadata__": {"kind": 3}},
    "no text": b'{"\xff\xfe": 1}',
}
IDENTITY = {"kind": "faceclip_identity", "version": "1", "encoder": "e" * 64, "shares": "[1]"}
SHARES = ["[" * 100_000, "[1" + "0" * 400 + "]", "[NaN]", "{}", "3", "null", "", "[[1]]", '["a"]']


def test_every_damaged_file_is_told_and_the_rest_is_looked_at(tmp_path):
    models = {key: tmp_path / key for key in ("faceclip", "diffusion_models", "faceclip_identities", "insightface")}
    for folder in models.values():
        folder.mkdir()
    for number, header in enumerate(HEADERS.values()):
        for key in ("faceclip", "faceclip_identities"):
            put_header(models[key] / f"{number}.safetensors", header)
        put_header(models["diffusion_models"] / f"unet{number}.safetensors", header)
    for number, shares in enumerate(SHARES):
        header = {"__metadata__": {**IDENTITY, "shares": shares}, **json.loads(safetensors("a")[8:-256])}
        path = put_header(models["faceclip_identities"] / f"shares{number}.safetensors", header)
        path.write_bytes(path.read_bytes() + bytes(252))
    (models["faceclip"] / "bad.pt").write_bytes(b"PK\x03\x04" + b"\xff" * 100 + b"PK\x05\x06" + b"\xff" * 18)
    (models["faceclip"] / "good.safetensors").write_bytes(safetensors("a"))
    with bounded(seconds=10):
        found = model_files.check_files({key: [str(folder)] for key, folder in models.items()}, False)
    told = {finding.topic: finding.state for finding in found if finding.state != OK}
    wanted = [f"{n}.safetensors" for n in range(len(HEADERS))] + [f"unet{n}.safetensors" for n in range(len(HEADERS))]
    wanted += [f"identity {n}" for n in range(len(HEADERS))] + [f"identity shares{n}" for n in range(len(SHARES))]
    assert not {*wanted, "bad.pt"} - told.keys()
    assert [finding.state for finding in found if finding.topic == "good.safetensors"] == [OK]
    assert all(len(line) < 5000 for line in report(found).splitlines())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_pipes_devices_and_loops_of_links_keep_nobody_waiting(installation):
    folder = installation.encoder.parent
    for key in ("faceclip", "diffusion_models", "face_detection", "insightface", "faceclip_identities"):
        place = installation.models / key
        place.mkdir(exist_ok=True)
        for ending in ("safetensors", "onnx", "pt"):
            os.mkfifo(place / f"unet pipe.{ending}")
            (place / f"unet zero.{ending}").symlink_to("/dev/zero")
            (place / f"unet loop.{ending}").symlink_to(place / f"unet loop.{ending}")
    for name in "abc":  # each leads to all of them: more paths than can be walked
        (folder / name).symlink_to(folder, target_is_directory=True)
    problems, text = installation.examine()
    assert problems > 10 and text.count("is no file but a pipe, a device or the like") > 10
    assert f"[ok]      {installation.encoder.name}: {installation.encoder}" in text
    assert text.count("unet pipe.pt:") == 2  # in two folders, once each


def test_names_and_headers_forge_no_line(installation):
    evil = "a\n[ok]      all: is well\x1b[2J\u202e.safetensors"
    (installation.encoder.parent / evil).write_bytes(b"no model")
    identities = installation.models / "faceclip_identities"
    identities.mkdir()
    header = {"__metadata__": {**IDENTITY, "created_by": evil, "references": evil}}
    (identities / "x.safetensors").write_bytes(safetensors("a", header["__metadata__"]))
    (identities / os.fsdecode(b"\xff.safetensors")).write_bytes(b"")
    problems, text = installation.examine()
    assert problems == 2
    assert not any(line.startswith("[ok]      all") for line in text.splitlines())
    assert "\x1b" not in text and "\u202e" not in text and "a\\n[ok]      all: is well\\x1b[2J\\u202e" in text
    assert "\\udcff" in text


# FaceT5, which nobody needs to have.


@pytest.fixture
def facet5(tmp_path):
    """Folders with FaceT5's encoder and transformer, each known by its header, and no VAE."""
    folders = {key: tmp_path / key for key in ("faceclip", "diffusion_models", "vae")}
    for folder in folders.values():
        folder.mkdir()
    (folders["faceclip"] / "a.safetensors").write_bytes(safetensors("t5_encoder.block.0.ff_layer.wo.weight"))
    key = "single_transformer_blocks.0.attn.to_q.weight"
    (folders["diffusion_models"] / "b.safetensors").write_bytes(safetensors(key))
    return folders


def told(folders) -> dict[str, str]:
    found = model_files.check_files({key: [str(folder)] for key, folder in folders.items()}, False)
    return {finding.topic: finding.state for finding in found if not finding.topic.startswith("folder")}


def test_facet5_stands_in_for_faceclip_and_asks_for_its_vae(facet5):
    states = told(facet5)
    assert states["a.safetensors"] == states["b.safetensors"] == OK
    assert published.ENCODER.name not in states and published.UNET.name not in states
    assert states[published.FLUX_VAE.name] == WARN
    (facet5["vae"] / published.FLUX_VAE.name).write_bytes(safetensors("decoder.conv_in.weight"))
    assert published.FLUX_VAE.name not in told(facet5)


@pytest.mark.parametrize(("gone", "wanted"), [("faceclip", published.T5_ENCODER), ("diffusion_models", published.DIT)])
def test_half_a_facet5_asks_for_the_other_half(facet5, gone, wanted):
    for path in facet5[gone].iterdir():
        path.unlink()
    assert told(facet5)[wanted.name] == PROBLEM


def test_hashes_that_nobody_knows_are_told_and_nothing_claimed(facet5):
    path = facet5["faceclip"] / published.T5_ENCODER.name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    found = model_files.check_files({"faceclip": [str(facet5["faceclip"])]}, True)
    (finding,) = [one for one in found if one.topic == path.name]
    assert finding.state == OK
    assert f"SHA-256 {published.sha256(path)}; that of the published file is not known here" in finding.text
