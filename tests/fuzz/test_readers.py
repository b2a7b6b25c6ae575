"""Damaged files against every reader: each ends in one of our own errors, within a bound of time and memory, or reads.

A run in CI is short, and always the same. A longer one, by hand, of other files each time::

    FACECLIP_FUZZ=2000 python -m tests tests/fuzz

FACECLIP_FUZZ is the number of files for each reader, FACECLIP_FUZZ_SEED a number to begin with.
"""

import argparse
import contextlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
import scrfd
import torch
from flux_models import FLUX as FLUX_SIZES
from golden import TINY
from golden_t5 import TINY_T5
from safetensors.torch import save
from seeded import seeded

pytest.importorskip("hypothesis", reason="hypothesis is not installed; `python -m tests` brings it")
pytest.importorskip("accelerate", reason="training's own requirements are not installed")

import train_runs as runs
from bounds import bounded
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded_by
from hypothesis import strategies as st
from PIL import Image

from faceclip import convert, lora
from faceclip.bulk.grid import read_grid
from faceclip.bulk.jobs import read_jobs
from faceclip.comfy import answers
from faceclip.doctor import model_files
from faceclip.errors import FaceCLIPError
from faceclip.faces.detect.insight import InsightFace
from faceclip.faces.detect.yunet import YuNet
from faceclip.files.picture import open_picture, upright_rgb
from faceclip.files.state_dict import read_state_dict
from faceclip.files.toml import read_json, read_toml
from faceclip.identity.file import load_person
from faceclip.install import places
from faceclip.model.checkpoint import CONFIG_KEY, load
from faceclip.sampling import diffusion_file
from faceclip.small import models as small
from faceclip.train import run_file, shard_stream, towers
from faceclip.train.checkpoint_index import read_index
from faceclip.train.prepare import photos
from faceclip.train.resume import latest, read_position
from faceclip.train.small import classifier, vae

FILES = int(os.environ.get("FACECLIP_FUZZ", "60"))
SEED = os.environ.get("FACECLIP_FUZZ_SEED")
PACK = Path(__file__).resolve().parents[2]
# What numbers, texts and lists in a header or a table are turned into.
NASTY = [
    0, -1, 1, 2**31, 2**62, 65536, 1e308, float("nan"), None, True, "", "x" * 1000, "\x1b[2J\n", [], {}, [[]], ["x"],
]  # fmt: skip


def tensors(state=None, **metadata) -> bytes:
    return save(
        {"face_clip_l.logit_scale": torch.ones(3), "conv_in.weight": torch.ones(2, 2)} if state is None else state,
        metadata,
    )


def torch_file(state, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def picture(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def shard(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in (("a.json", b'{"caption": "x"}'), ("a.png", picture("PNG")), ("b.json", b"{}")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def identity() -> bytes:
    state = {
        "thumbnails": torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        "l.class_token": torch.ones(1, 4),
        "l.patch_tokens": torch.ones(1, 144, 2),
    }
    header = {"kind": "faceclip_identity", "version": "1", "encoder": "e" * 64, "shares": "[1.0]", "references": "1"}
    return save(state, header)


def clip_file() -> bytes:
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "head_width": 8, "patch_size": 4},
        "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
    }
    return tensors(open_clip_config=json.dumps(config))


STATE = {"face_clip_l.logit_scale": torch.ones(3), "face_clip_l.x": torch.arange(4)}
ANY_STATE = [tensors(), torch_file(STATE), torch_file({"state_dict": STATE}, _use_new_zipfile_serialization=False)]
UNET = seeded({"conv_in.weight": (32, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": (32, 32, 3, 3)})
FLUX_KEYS = ("transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.attn.to_q.weight")
FLUX = seeded(dict.fromkeys((*FLUX_KEYS, "x_embedder.weight", "context_embedder.weight"), (64, 64)))
SAVED_FLUX = seeded(
    {
        f"model.diffusion_model.{key}.weight": shape
        for key, shape in {
            "img_in": (64, 64),
            "txt_in": (64, 64),
            "double_blocks.0.img_attn.qkv": (192, 64),
            "single_blocks.0.linear1": (448, 64),
        }.items()
    }
)
T5 = seeded({"t5_encoder.embed_tokens.weight": (8, 4), "t5_encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)})
SDXL = {
    f"model.diffusion_model.{name}": torch.ones(32, 4, 3, 3) for name in ("input_blocks.0.0.weight", "out.2.weight")
}
GRID = {"identities": [{"pictures": ["a.jpg"]}], "prompts": ["a", {"name": "b", "text": "c"}], "seeds": [0, 1]}
RUN = b'[run]\nstage = "alignment"\noutput = "out"\nsteps = 3\n[data]\nshards = ["*.tar"]\n[model]\nface = "a.pt"\n'
UNET_HEADER, FLUX_HEADER = diffusion_file.header(small.UNET), diffusion_file.header(FLUX_SIZES)


def doctor(path: Path) -> None:
    found = model_files.check_files({"faceclip": [path.parent], places.IDENTITIES: [path.parent]}, False)
    assert all(one.state for one in found)


def convert_file(path: Path) -> None:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    convert.run(parser.parse_args([str(path), str(path.with_name("out.safetensors")), "--force"]))


# reader -> (the name of the file, what reads it, files that it takes)
READERS = {
    "state dict": ("a.pt", read_state_dict, ANY_STATE),
    "encoder": ("a.safetensors", load, [tensors(**{CONFIG_KEY: TINY.to_json()}), *ANY_STATE]),
    "facet5": ("a.safetensors", load, [tensors(T5, **{CONFIG_KEY: TINY_T5.to_json()}), tensors(T5)]),
    "unet": ("a.safetensors", diffusion_file.read, [tensors(UNET, **UNET_HEADER), tensors(UNET), tensors(SDXL)]),
    "flux": ("a.safetensors", diffusion_file.read, [tensors(FLUX, **FLUX_HEADER), tensors(FLUX), tensors(SAVED_FLUX)]),
    "base of a lora": ("a.safetensors", lambda p: lora.read_base(p, small.UNET), [tensors(UNET), tensors(SDXL)]),
    "convert": ("a.safetensors", convert_file, ANY_STATE),
    "identity": ("a.safetensors", load_person, [identity()]),
    "doctor": ("a.safetensors", doctor, [identity(), *ANY_STATE]),
    "small vae": (
        "a.safetensors",
        lambda p: small._vae_as_the_host_wants_it(p),
        [tensors(), tensors(UNET)],
    ),
    "trained vae": ("a.safetensors", vae.load, [tensors(**{vae.METADATA_KEY: vae.SmallVAEConfig().to_json()})]),
    "classifier": ("a.safetensors", classifier.load_classifier, [tensors({"stem.0.weight": torch.ones(8, 3, 3, 3)})]),
    "clip tower": ("a.safetensors", towers.load_clip, [clip_file()]),
    "face tower": (
        "a.safetensors",
        towers.read_face_encoder,
        [tensors(seeded({"patch_embed.proj.weight": (8, 3, 9, 9), "feature.2.weight": (4, 8), "norm.weight": (8,)}))],
    ),
    "yunet": ("a.onnx", YuNet, [b"\x08\x06" + bytes(200)]),
    "picture": (
        "a.jpg",
        lambda p: upright_rgb(open_picture(p.read_bytes(), p.name)),
        [picture(kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")]
        + [picture("TIFF", compression="tiff_lzw")],
    ),
    "shard": (
        "a.tar",
        lambda p: list(shard_stream.read(str(p), lambda *_: None)),
        [shard(f"w:{kind}") for kind in ("", "gz", "xz")],
    ),
    "toml": ("a.toml", read_toml, [RUN, (PACK / "faceclip/train/small/recipe.toml").read_bytes()]),
    "json": ("a.json", read_json, [json.dumps(GRID).encode()]),
    "run file": ("a.toml", run_file.load, [RUN]),
    "benchmark file": ("a.json", read_grid, [json.dumps(GRID).encode()]),
    "jobs in lines": (
        "a.jsonl",
        lambda p: read_jobs(p).check(),
        [b'{"photo": "a.png", "prompt": "x", "seeds": 2, "size": "64x64", "settings.steps": 3}\n'],
    ),
    "jobs in a table": ("a.csv", lambda p: read_jobs(p).check(), [b'photo,prompt,name\na.png,"x, y",../z\n']),
    "captions": (
        "captions.jsonl",
        lambda p: photos._table(p.parent),
        [b'{"file": "a.jpg", "caption": "x"}\n{"file": "b.jpg", "caption": "y"}\n'],
    ),
    "caption table": ("captions.csv", lambda p: photos._table(p.parent), [b'file,caption\na.jpg,"x, y"\nb.jpg,z\n']),
    "folders": ("extra.yaml", places.read_extra_paths, [b"comfyui:\n  base_path: /x\n  faceclip: |\n    a\n    b\n"]),
    "answer": (
        "a.json",
        lambda p: answers.parsed(p.read_bytes(), "/prompt"),
        [b'{"prompt_id": "x", "node_errors": {}}'],
    ),
    "event": (
        "a.json",
        lambda p: answers.event_of(p.read_text("utf-8", "replace")),
        [b'{"type": "x", "data": {"node": null}}'],
    ),
}


@st.composite
def damaged(draw, files: list[bytes]) -> bytes:
    """One of the files with bytes changed, cut out, put in or repeated, or with a value of its JSON turned nasty."""
    data = draw(st.sampled_from(files))
    if draw(st.booleans()) and (turned := _nasty(draw, data)) is not None:
        return turned
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        if not changed:
            break
        place, size = draw(st.integers(0, len(changed) - 1)), draw(st.integers(1, 16))
        match draw(st.integers(0, 4)):
            case 0:
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case 1:
                changed[place : place + size] = draw(st.binary(max_size=16))
            case 2:
                changed[place : place + size] = draw(st.sampled_from([b"\xff", b"\0", b"\x7f"])) * size
            case 3:
                changed[place:place] = changed[place : place + size] * draw(st.sampled_from([1, 3, 1000]))
            case 4:
                del changed[place:]
    return bytes(changed[:900_000])


def _nasty(draw, data: bytes) -> bytes | None:
    """The file's JSON, or that of its safetensors header, with one value in it exchanged."""
    length = int.from_bytes(data[:8], "little")
    is_header = data[8:9] == b"{" and length <= len(data) - 8
    text = data[8 : 8 + length] if is_header else data
    try:
        table = json.loads(text)
    except ValueError:
        return None
    table = _exchange(draw, table)
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :] if is_header else text


def _exchange(draw, value):
    if isinstance(value, str) and value[:1] == "{" and draw(st.booleans()):
        return json.dumps(_exchange(draw, json.loads(value)))  # a config in a header is JSON in JSON
    if isinstance(value, dict | list) and value and draw(st.integers(0, 5)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        value[key] = _exchange(draw, value[key])
        return value
    return draw(st.sampled_from(NASTY))


def check(read, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with bounded():
        try:
            read(path)
        except FaceCLIPError as error:
            text = str(error)
            assert len(text) < 3000 and all(sign.isprintable() or sign in "\n" for sign in text), text


def run_many(read, path: Path, files: list[bytes]) -> None:
    """Damaged forms of these files, each put at `path` and read."""

    @given(damaged(files))
    def each(data):
        check(read, path, data)

    usual = settings(
        max_examples=FILES,
        deadline=None,
        database=None,
        derandomize=SEED is None and "FACECLIP_FUZZ" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    (seeded_by(int(SEED))(usual(each)) if SEED else usual(each))()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_reader(name, tmp_path, capsys):
    file, read, files = READERS[name]
    with contextlib.suppress(FaceCLIPError):
        read_once(read, tmp_path / file, files[0])  # what it imports is no part of what a file takes
    run_many(read, tmp_path / file, files)


def read_once(read, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    read(path)


@pytest.mark.filterwarnings("ignore")
def test_training_checkpoint(tmp_path):
    runs.run(tmp_path / "run", steps=2, save_every=2)
    folder = latest(tmp_path / "run" / "checkpoints")
    for path, read in (
        (folder / "parts" / ".metadata", read_index),
        (folder / "position.json", lambda path: read_position(path.parent)),
        (folder / "rank-0.pt", read_state_dict),
    ):
        run_many(read, path, [path.read_bytes()])


@pytest.mark.filterwarnings("ignore")
def test_network_of_a_pack(tmp_path):
    path = scrfd.write_detector(tmp_path / "pack" / "det_x.onnx")
    InsightFace(path.parent, "CPU")
    run_many(lambda path: InsightFace(path.parent, "CPU"), path, [path.read_bytes()])
