"""`python -m faceclip convert`, through the command's real entry point."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden import TINY, tiny_weights
from safetensors.torch import load_file
from writers import heed_ctrl_c

from faceclip.__main__ import main
from faceclip.files import state_dict
from faceclip.install import published
from faceclip.model import checkpoint, families
from faceclip.sampling import unet_file
from faceclip.small import models as small

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def weights():
    return tiny_weights(equal_faces=True)


@pytest.fixture
def encoder_pt(weights, tmp_path, monkeypatch):
    """A .pt file that stands for the published encoder."""
    monkeypatch.setattr(families, "FAMILIES", (replace(families.FACECLIP, published=TINY), families.FACET5))
    torch.save({f"model.{key}": value for key, value in weights.items()}, tmp_path / "face_clip_encoder.pt")
    return tmp_path / "face_clip_encoder.pt"


@pytest.fixture
def unet_pt(tmp_path, monkeypatch):
    """A .pt file that stands for the published UNet."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(shape, generator=generator) for key, shape in unet_file.expected_shapes(small.UNET).items()
    }
    monkeypatch.setattr(unet_file, "SDXL", small.UNET)
    torch.save({key: value.bfloat16() for key, value in state.items()}, tmp_path / "unet.pt")
    return tmp_path / "unet.pt"


def convert(*arguments):
    return main(["convert", *map(str, arguments)])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dtypes(path):
    return {value.dtype for key, value in load_file(path).items() if not key.endswith("num_batches_tracked")}


def test_the_encoder(encoder_pt, weights, tmp_path, capsys):
    target = tmp_path / "out.safetensors"
    assert convert(encoder_pt, target) == 0
    out, err = capsys.readouterr()
    assert digest(encoder_pt) in out and digest(target) in out
    assert f"{target.stat().st_size:,} bytes" in out
    assert "kept once" in out and "parameters in fp32;" in out
    for words in ("Checking", "Writing", "Hashing face_clip_encoder.pt", "Hashing out.safetensors", "100%"):
        assert words in err
    state, config = checkpoint.read_faceclip(target)
    assert config == TINY
    assert torch.equal(state["face_clip_g.proj1.weight"], weights["face_clip_g.proj1.weight"])
    assert dtypes(target) == {torch.float32}
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_different_face_encoders_are_reported(weights, tmp_path, capsys):
    changed = {**weights, "face_clip_l.face_encoder.norm.bias": weights["face_clip_l.face_encoder.norm.bias"] + 1}
    checkpoint.save(changed, tmp_path / "two.safetensors", TINY)
    assert convert(tmp_path / "two.safetensors", tmp_path / "out.safetensors") == 0
    assert "different face encoders, both are kept" in capsys.readouterr().out


def test_the_unet(unet_pt, tmp_path, capsys):
    target = tmp_path / "out.safetensors"
    assert convert(unet_pt, target) == 0
    assert "SDXL UNet" in capsys.readouterr().out
    state, config = unet_file.read(target)
    assert config == small.UNET and dtypes(target) == {torch.bfloat16}
    assert len(state) == len(unet_file.expected_shapes(small.UNET))
    assert convert(target, tmp_path / "wide.safetensors", "--dtype", "fp32") == 0
    assert dtypes(tmp_path / "wide.safetensors") == {torch.float32}


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_dtypes(weights, tmp_path, capsys, name, dtype):
    checkpoint.save(weights, tmp_path / "own.safetensors", TINY)
    assert convert(tmp_path / "own.safetensors", tmp_path / "out.safetensors", "--dtype", name) == 0
    assert f"written as {name}" in capsys.readouterr().out
    assert dtypes(tmp_path / "out.safetensors") == {dtype}
    checkpoint.read_faceclip(tmp_path / "out.safetensors")


def test_a_published_hash_is_said(encoder_pt, tmp_path, capsys, monkeypatch):
    known = published.PublishedFile(
        **{**vars(published.ENCODER), "sha256": digest(encoder_pt), "name": "face_clip_encoder.pt"}
    )
    monkeypatch.setattr(published, "FILES", {"encoder": known})
    assert convert(encoder_pt, tmp_path / "out.safetensors") == 0
    out, err = capsys.readouterr()
    assert "This is the published face_clip_encoder.pt of ByteDance/FaceCLIP" in out and "CC BY-NC 4.0" in out
    assert "WARNING" not in err


def test_a_published_name_with_another_hash_is_said_loudly(encoder_pt, tmp_path, capsys):
    assert convert(encoder_pt, tmp_path / "out.safetensors") == 0
    err = capsys.readouterr().err
    assert "WARNING: this is NOT the published face_clip_encoder.pt" in err
    assert published.ENCODER.sha256 in err and published.ENCODER.url in err


def test_an_unknown_file_is_said_to_be_unknown(encoder_pt, tmp_path, capsys):
    encoder_pt = encoder_pt.rename(tmp_path / "mine.pt")
    assert convert(encoder_pt, tmp_path / "out.safetensors") == 0
    out, err = capsys.readouterr()
    assert "none of the published files" in out and "WARNING" not in err


# ---- refusals ----


def fails(capsys, *arguments):
    assert convert(*arguments) == 1
    err = capsys.readouterr().err
    assert "error: " in err and "Traceback" not in err
    return err


def test_an_existing_file_is_refused_before_the_long_work(encoder_pt, tmp_path, capsys, monkeypatch):
    target = tmp_path / "out.safetensors"
    target.write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(published, "sha256", lambda *_: pytest.fail("work was begun"))
        patch.setattr("faceclip.convert.read_state_dict", lambda *_: pytest.fail("work was begun"))
        assert "exists already" in fails(capsys, encoder_pt, target)
    assert target.read_text() == "mine"
    assert convert(encoder_pt, target, "--force") == 0
    checkpoint.read_faceclip(target)


def test_a_file_is_not_converted_onto_itself(weights, tmp_path, capsys):
    path = tmp_path / "own.safetensors"
    checkpoint.save(weights, path, TINY)
    before = digest(path)
    assert "the file to convert itself" in fails(capsys, path, path, "--force")
    assert digest(path) == before


def test_other_models_and_broken_files(unet_pt, tmp_path, capsys):
    torch.save({"a.lora_up.weight": torch.zeros(1)}, tmp_path / "lora.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(unet_pt.read_bytes()[:100_000])
    target = tmp_path / "out.safetensors"
    message = fails(capsys, tmp_path / "lora.pt", target)
    assert "neither a FaceCLIP encoder nor a diffusers UNet" in message and "a LoRA" in message
    assert "truncated" in fails(capsys, cut, target)
    assert "There is no file" in fails(capsys, tmp_path / "nothing.pt", target)
    assert "is a folder" in fails(capsys, tmp_path, target)
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert "is a folder" in fails(capsys, unet_pt, folder)
    assert not target.exists()


def test_an_incomplete_encoder_names_what_is_missing(encoder_pt, tmp_path, capsys):
    state = torch.load(encoder_pt, weights_only=True)
    del state["model.face_clip_g.proj1.weight"]
    torch.save(state, encoder_pt)
    assert "1 missing: face_clip_g.proj1.weight" in fails(capsys, encoder_pt, tmp_path / "out.safetensors")


def test_half_precision_that_overflows_is_refused(unet_pt, tmp_path, capsys):
    state = torch.load(unet_pt, weights_only=True)
    state["conv_in.bias"][3] = -1e6
    torch.save(state, unet_pt)
    message = fails(capsys, unet_pt, tmp_path / "out.safetensors", "--dtype", "fp16")
    assert "too large for float16" in message and "conv_in.bias" in message
    assert not (tmp_path / "out.safetensors").exists()


def test_a_full_disk_is_said(encoder_pt, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in fails(capsys, encoder_pt, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == [encoder_pt]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.pt"],
        ["a.pt", "out.pt"],
        ["a.pt", "out.safetensors", "--dtype", "int8"],
        ["a.pt", "out.safetensors", "x"],
    ],
)
def test_wrong_usage_ends_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        convert(*arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_ctrl_c_while_writing_leaves_nothing(encoder_pt, tmp_path, capsys, monkeypatch):
    write = state_dict.write_safetensors

    def interrupted(state, path, metadata, force, dtype, progress):
        def stop(done, total):
            progress(done, total)
            if done == 10:
                assert [p.name for p in tmp_path.iterdir() if "partial" in p.name]
                raise KeyboardInterrupt

        write(state, path, metadata, force, dtype, stop)

    monkeypatch.setattr(checkpoint, "write_safetensors", interrupted)
    assert convert(encoder_pt, tmp_path / "out.safetensors") == 130
    assert "stopped" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [encoder_pt]


def test_a_real_process_without_traceback(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    command = [sys.executable, "-m", "faceclip", "convert", tmp_path / "empty.pt", tmp_path / "out.safetensors"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1 and "is empty" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind are POSIX's")
def test_a_real_ctrl_c(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "out.safetensors"
    state_dict.write_safetensors({"face_clip_l.proj1.bias": torch.zeros(2)}, source, {})
    code = (
        "import sys, time, faceclip.install.published as published\n"
        "def slow(path, progress=None):\n    print('hashing', flush=True)\n    time.sleep(60)\n"
        "published.sha256 = slow\n"
        "from faceclip.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "convert", source, target],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout.readline() == "hashing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "stopped" in err and "Traceback" not in err
    assert not target.exists()
