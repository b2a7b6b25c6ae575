"""Model files that say more of themselves than their bytes hold. Each must be refused at once, and in plain words."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bounds import bounded
from golden import TINY, tiny_weights
from safetensors.torch import save_file

from faceclip.errors import CheckpointError
from faceclip.files import mapped, state_dict, whole
from faceclip.files.state_dict import read_state_dict
from faceclip.model.checkpoint import CONFIG_KEY, expected_shapes, face_encoder_hash, load, save
from faceclip.model.config import PUBLISHED
from faceclip.sampling import unet_file
from faceclip.sampling.unet_config import METADATA_KEY, SDXL

CASES = Path(__file__).parent / "data" / "cases"


def refused(read, path, *words) -> str:
    with bounded(), pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    assert len(message) < 2000 and all(sign.isprintable() or sign == "\n" for sign in message)
    return message


# ---- the cases that were reported: 6.4 GB and minutes, or errors of torch's own ----


@pytest.mark.parametrize(
    ("name", "read", "words"),
    [
        ("st_unet_layers.safetensors", unet_file.read, "the file holds 1"),
        ("st_cfg_65536_layers.safetensors", load, "the file holds 1"),
        ("st_f4.safetensors", load, "as F4, which cannot be used: plain floating point weights"),
        ("pt_meta.pt", load, "tensors without values (of the device meta)"),
        ("pt_sparse_coo.pt", load, "sparse tensors"),
        ("pt_nested.pt", load, "nested tensors"),
    ],
)
def test_reported_files(name, read, words):
    refused(read, CASES / name, name, words)


# ---- headers ----


@pytest.mark.parametrize("part", ["l", "g", "face", "fuser"])
def test_an_encoder_with_more_layers_than_its_file_holds(tmp_path, part):
    config = replace(TINY, **{part: replace(getattr(TINY, part), layers=65536)})
    path = tmp_path / "a.safetensors"
    save_file({"face_clip_l.logit_scale": torch.zeros(())}, path, {CONFIG_KEY: config.to_json()})
    refused(load, path, "the file holds 1")


def test_a_unet_with_more_blocks_than_its_file_holds(tmp_path):
    path = tmp_path / "a.safetensors"
    for change in ({"layers_per_block": 65536}, {"transformer_layers_per_block": (1, 2, 65536)}):
        config = replace(SDXL, **change)
        save_file({"conv_in.weight": torch.zeros(2)}, path, {METADATA_KEY: config.to_json()})
        refused(unet_file.read, path, "the file holds 1")


def test_a_unet_with_thousands_of_levels(tmp_path):
    raw = json.loads(SDXL.to_json())
    for key, value in raw.items():
        raw[key] = value * 2000 if isinstance(value, list) else value
    raw["block_out_channels"], raw["attention_head_dim"] = [64] * 6000, [1] * 6000
    raw["up_block_types"] = ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"] * 2000
    path = tmp_path / "a.safetensors"
    save_file({"conv_in.weight": torch.zeros(2)}, path, {METADATA_KEY: json.dumps(raw)})
    refused(unet_file.read, path, "the file holds 1")


@pytest.mark.parametrize(("levels", "blocks"), [(10, 1500), (1200, 300)])
def test_a_saved_unet_whose_names_promise_millions_of_layers(tmp_path, levels, blocks):
    shapes = {"input_blocks.0.0.weight": (1, 4), "out.2.weight": (4,), "label_emb.0.0.weight": (1, 2816)}
    for level in range(levels):
        first = 1 + level * (blocks + 1)
        shapes[f"input_blocks.{first}.0.out_layers.3.weight"] = (64,)
        shapes[f"input_blocks.{first + 1}.x"] = (1,)
        if level < levels - 1:
            shapes[f"input_blocks.{first + blocks}.0.op.weight"] = (1,)
    for number in range(blocks):
        shapes[f"input_blocks.{1 + number}.x"] = (1,)
        shapes[f"input_blocks.1.1.transformer_blocks.{number}.attn2.to_k.weight"] = (1, 8)
    path = tmp_path / "a.safetensors"
    save_file({f"model.diffusion_model.{key}": torch.zeros(shape) for key, shape in shapes.items()}, path)
    assert path.stat().st_size < 1_000_000
    refused(unet_file.read, path, "levels" if levels > 16 else f"the file holds {len(shapes)}")


def safetensors_file(path, header, size=0, length=None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(size))
    return path


def entry(shape, begin=0, end=4, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "size", "words"),
    [
        ({"a": entry([2**40], 0, 2**42)}, 0, "is truncated"),
        ({"a": entry([2**62, 2**62], 0, 4)}, 4, "does not take 4 bytes"),
        ({"a": entry([1]), "b": entry([1])}, 4, "lie over each other"),
        ({"a": entry([1], 4, 8)}, 8, "leave a gap"),
        ({"a": entry([-1], 0, 4)}, 4, "has the shape"),
        ({"a": entry([True], 0, 4)}, 4, "has the shape"),
        ({"a": entry([1.0], 0, 4)}, 4, "has the shape"),
        ({"a": entry([1], 0, 1, "I4")}, 1, "as I4"),
        ({"a": entry([1], 0, 4, ["F32"])}, 4, "cannot be used"),
        ({"a": [1]}, 0, "does not say what a is"),
        ({"k" * 400_000: entry([1])}, 4, "a weight's name of 400000 characters"),
        ({"a\x1b[2J\n[ok] all is well": entry([2])}, 4, "a\\x1b[2J\\n[ok] all is well"),
        ({"__metadata__": {"a": 1}, "a": entry([1])}, 4, "not all text"),
        ({"__metadata__": [1], "a": entry([1])}, 4, "not all text"),
        (b"[" * 500_000, 0, "beginning is damaged"),
        (b'{"a":' + b"[" * 500_000, 0, "its header is no JSON"),
        (b'{"a":' + b"9" * 500_000 + b"}", 0, "truncated or damaged"),
        (b"{}", 0, "no weights"),
    ],
)
def test_headers_that_lie(tmp_path, header, size, words):
    refused(read_state_dict, safetensors_file(tmp_path / "a.safetensors", header, size), words)


@pytest.mark.parametrize("length", [2**63, 2**40, 0, 1])
def test_headers_of_another_length(tmp_path, length):
    refused(
        read_state_dict, safetensors_file(tmp_path / "a.safetensors", {"a": entry([1])}, 4, length), "a.safetensors"
    )


def test_a_config_of_megabytes_is_not_repeated_in_the_message(tmp_path):
    for text in (json.dumps({"l": "x" * 400_000}), json.dumps({"x" * 400_000: 1}), "[" * 100_000, "9" * 400_000):
        for key, read in ((CONFIG_KEY, load), (METADATA_KEY, unet_file.read)):
            path = tmp_path / "a.safetensors"
            save_file({"face_clip_l.logit_scale": torch.zeros(())}, path, {key: text})
            refused(read, path, "cannot be used")


def test_a_name_with_line_ends_forges_no_line(tmp_path):
    path = tmp_path / "a\n[ok] fine\x1b[31m.safetensors"
    path.write_bytes(b"no model")
    assert "\n" not in refused(load, path, "a\\n[ok] fine\\x1b[31m.safetensors")


def test_the_layers_of_the_published_model_are_as_many_as_its_config_says():
    assert sum(".resblocks.31." in key for key in expected_shapes(PUBLISHED, True)) == 12
    assert not any(".resblocks.32." in key for key in expected_shapes(PUBLISHED, True))


# ---- torch's format ----

KEY = "face_clip_l.logit_scale"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda: torch.zeros(1).expand(10_000, 10_000), "holds expanded (stride 0) tensors"),
        (lambda: torch.zeros(8).as_strided((10_000, 4), (0, 1)), "holds expanded (stride 0) tensors"),
        (lambda: torch.zeros(100_000).as_strided((50_000, 50_000), (1, 1)), "many times what lies in it"),
        (lambda: torch.eye(3).to_sparse(), "sparse tensors"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse tensors"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised tensors"),
        (lambda: torch.empty(2**50, device="meta"), "tensors without values"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested tensors"),
    ],
    ids=["expanded", "expanded rows", "spread", "coo", "csr", "quantised", "meta", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_another_kind(tmp_path, tensor, words, zipped):
    path = tmp_path / "a.pt"
    torch.save({KEY: tensor()}, path, _use_new_zipfile_serialization=zipped)
    refused(load, path, words)


def test_one_tensor_under_many_names(tmp_path):
    path, one = tmp_path / "a.pt", torch.zeros(50_000)
    torch.save({f"{KEY}.{i}": one for i in range(2000)}, path)
    refused(load, path, "many times what lies in it")


def test_both_face_encoders_may_be_one_and_the_same(tmp_path):
    one = torch.zeros(50_000)
    torch.save(
        {"a": one, "b": one, "c": torch.nn.Parameter(torch.ones(3)), "d": one.to(torch.float8_e4m3fn)},
        tmp_path / "a.pt",
    )
    state, _ = read_state_dict(tmp_path / "a.pt")
    assert state.keys() == {"a", "b", "c", "d"}


def rezip(path, how=zipfile.ZIP_STORED, change=lambda name, data: data, more=()):
    with zipfile.ZipFile(path) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in [*((name, change(name, data)) for name, data in parts), *more]:
            archive.writestr(name, data)


def test_a_compressed_archive_that_would_unpack_to_gigabytes(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({KEY: torch.zeros(2)}, path)
    rezip(path, zipfile.ZIP_DEFLATED, lambda name, data: bytes(300_000_000) if name.endswith("data.pkl") else data)
    assert path.stat().st_size < 1_000_000
    refused(load, path, "its parts are compressed")


def test_an_archive_with_two_lists_of_contents(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({KEY: torch.zeros(2)}, path)
    rezip(path, more=[("b/data.pkl", b"x")])
    refused(load, path, "truncated, damaged")


def test_a_storage_that_claims_more_than_there_is(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({KEY: torch.zeros(4)}, path)
    longer = lambda _, data: data.replace(b"K\x04tq", b"M\xa0\x0ftq").replace(b"K\x04\x85", b"M\xa0\x0f\x85")  # noqa: E731
    rezip(path, change=longer)
    refused(load, path, "truncated, damaged")


@pytest.mark.parametrize("old", [False, True])
def test_a_name_that_takes_for_ever_to_look_up(tmp_path, old):
    path = tmp_path / "a.pt"
    torch.save({KEY: torch.zeros(2)}, path, _use_new_zipfile_serialization=not old)
    doubled = b"K\x01K\x02\x86" + b"q\x00h\x00\x86" * 60  # a tuple of itself twice, sixty times over
    bomb = b"\x80\x02}" + doubled + b"K\x01s."
    if old:
        path.write_bytes(path.read_bytes().replace(b"\x80\x02}", bomb[:-1] + b"0}", 1))
    else:
        rezip(path, change=lambda name, data: bomb if name.endswith("data.pkl") else data)
    refused(load, path, "truncated, damaged")


@pytest.mark.parametrize("mapped_from", [0, 2**40])
def test_weights_that_reach_into_others(tmp_path, monkeypatch, mapped_from):
    monkeypatch.setattr(mapped, "COPIED", mapped_from)
    path = tmp_path / "a.pt"
    torch.save({KEY: torch.zeros(100), "more": torch.zeros(100)}, path)
    rezip(path, change=lambda name, data: data[:16] if name.endswith("data/0") else data)
    refused(load, path, "truncated, damaged")


class Call:
    """Pickles as a call of `function`, which torch's own reader takes for harmless."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [Call(bytearray, 2**31), Call(torch.Tensor, 10**9)], ids=["bytearray", "Tensor"])
def test_calls_that_only_take_memory(tmp_path, call):
    path = tmp_path / "a.pt"
    torch.save({KEY: torch.zeros(2), "more": call}, path)
    refused(load, path, "pickled Python objects")


def test_a_zip_that_goes_on_in_other_files(tmp_path):
    """Which ended in an error of zipfile's own."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(2)}, path)
    data = path.read_bytes()
    path.write_bytes(data[:-22] + b"PK\6\7" + struct.pack("<LQL", 1, 0, 2) + data[-22:])
    refused(read_state_dict, path, "its end is damaged")


@pytest.mark.parametrize("sign", [b"]", b"}", b"(", b"0", b")", b"\x8f", b"N"])
def test_a_pickle_of_a_million_signs(tmp_path, sign):
    buffer = io.BytesIO()
    torch.save({KEY: torch.zeros(2)}, buffer)
    path = tmp_path / "a.pt"
    path.write_bytes(buffer.getvalue())
    rezip(path, change=lambda name, data: b"\x80\x02" + sign * 900_000 + b"." if name.endswith("data.pkl") else data)
    refused(load, path, "a.pt")


def test_a_tar_archive_that_begins_like_a_pickle(tmp_path):
    path = tmp_path / "a.pt"
    with tarfile.open(path, "w") as archive:  # torch unpacks these into a folder
        member = tarfile.TarInfo("PK")
        archive.addfile(member)
    refused(load, path, "truncated, damaged")


def test_torchs_old_format_with_a_long_number(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(100_000))
    refused(load, path, "truncated, damaged")


# ---- what happens to a file after it was read ----


def test_a_small_file_that_is_cut_after_reading_changes_nothing(tmp_path):
    state = {"face_clip_l.a": torch.arange(10_000, dtype=torch.float32)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        read, _ = read_state_dict(tmp_path / name)
        (tmp_path / name).write_bytes(b"")  # a mapped file ends the process here: SIGBUS
        assert torch.equal(read["face_clip_l.a"], state["face_clip_l.a"])


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_large_file_is_mapped_and_reads_the_same(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(mapped, "COPIED", 0)
    path = tmp_path / f"a.{kind}"
    state = {"a": torch.randn(100, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_file(state, path, {"x": "y"}) if kind == "safetensors" else torch.save(state, path)
    read, metadata = read_state_dict(path)
    assert state_dict.equal_states(read, state) and metadata == ({"x": "y"} if kind == "safetensors" else {})


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small encoder's file that is treated as a large one: its weights stay in it."""
    path = tmp_path / "tiny.safetensors"
    save(tiny_weights(equal_faces=True), path, TINY)
    monkeypatch.setattr(mapped, "COPIED", 0)
    return path


def test_a_large_file_that_is_cut_while_in_use_is_told_and_not_read(tiny):
    model = load(tiny)
    model.encode_prompt(["a"])
    with open(tiny, "r+b") as file:
        file.truncate(1000)
    uses = (lambda: model.encode_prompt(["a"]), lambda: model.encode_identity(torch.zeros(1, 3, 112, 112)))
    for use in (*uses, lambda: face_encoder_hash(model), lambda: save(model, tiny.with_name("copy.safetensors"))):
        with pytest.raises(CheckpointError, match="tiny.safetensors was overwritten after it was loaded"):
            use()  # a read ends the process: SIGBUS


def test_a_large_file_that_is_overwritten_while_in_use_is_told(tiny):
    model = load(tiny)
    other = {key: value + 1 for key, value in tiny_weights(equal_faces=True).items()}
    save(other, tiny.with_name("other.safetensors"), TINY)
    with open(tiny, "r+b") as file:  # of the same length, as cp does it
        file.write(tiny.with_name("other.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="Load the file again"):
        model.encode_prompt(["a"])


def test_a_large_file_that_is_replaced_or_deleted_stays_what_it_was(tiny):
    model = load(tiny)
    wanted = model.encode_prompt(["a"]).embeddings
    whole.write(tiny, b"another file")
    assert torch.equal(model.encode_prompt(["a"]).embeddings, wanted)
    tiny.unlink()
    assert torch.equal(model.encode_prompt(["a"]).embeddings, wanted)


def test_weights_that_were_copied_need_no_file(tiny):
    model = load(tiny, dtype=torch.bfloat16)
    tiny.write_bytes(b"")
    model.encode_prompt(["a"])


def test_a_pipe_is_no_file(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names on this system")
    os.mkfifo(tmp_path / "a.safetensors")
    refused(load, tmp_path / "a.safetensors", "There is no file")
