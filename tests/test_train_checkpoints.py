"""A training checkpoint is data: what lies in its folder is never run, and a damaged one ends in a plain message."""

import contextlib
import json
import os
import pickle
import random

import pytest
import torch
import train_runs as runs
from bounds import bounded
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from faceclip.errors import CheckpointError
from faceclip.train.checkpoint_index import read_index
from faceclip.train.resume import latest

# A table with one key: a pair of two pairs, each of the same two, and so on. To look it up takes for ever.
DOUBLED = b"\x80\x02}K\x01K\x02\x86" + b"q\x00h\x00\x86" * 60 + b"K\x01s."


class Evil:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def checkpoint(tmp_path):
    runs.run(tmp_path / "run", steps=3)
    return latest(tmp_path / "run" / "checkpoints")


def resume(checkpoint):
    return runs.run(checkpoint.parents[1], steps=6)


def refused(checkpoint, *words):
    with bounded(), pytest.raises(CheckpointError) as caught:
        resume(checkpoint)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


def test_the_index_is_read_as_torch_reads_it(checkpoint):
    parts = checkpoint / "parts"
    wanted, seen = FileSystemReader(parts).read_metadata(), read_index(parts / ".metadata")
    assert seen.state_dict_metadata.keys() == wanted.state_dict_metadata.keys() and len(seen.state_dict_metadata) > 20
    for key, one in wanted.state_dict_metadata.items():
        other = seen.state_dict_metadata[key]
        assert type(other) is type(one)
        if isinstance(one, TensorStorageMetadata):
            assert (other.size, other.chunks, other.properties.dtype) == (one.size, one.chunks, one.properties.dtype)
    assert list(seen.storage_data) == list(wanted.storage_data)
    for key, part in wanted.storage_data.items():
        assert vars(seen.storage_data[key]) == {"transform_descriptors": None, **vars(part)}


def test_code_in_the_index_is_not_run(checkpoint, tmp_path):
    (checkpoint / "parts" / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path / "was run")))
    refused(checkpoint, "mkdir", "nothing in it was run")
    assert not (tmp_path / "was run").exists()


def test_code_in_place_of_a_value_in_the_index_is_not_run(checkpoint, tmp_path):
    path = checkpoint / "parts" / ".metadata"
    index = pickle.loads(path.read_bytes())
    index.storage_data[next(iter(index.storage_data))] = Evil(tmp_path / "was run")
    path.write_bytes(pickle.dumps(index))
    refused(checkpoint, "mkdir")
    assert not (tmp_path / "was run").exists()


def test_code_in_a_number_is_not_run(checkpoint, tmp_path):
    """What is no tensor is kept pickled in the parts; the index tells where, so that one can be put in its place."""
    path = checkpoint / "parts" / ".metadata"
    index = pickle.loads(path.read_bytes())
    key = next(key for key in index.storage_data if key.fqn.endswith("lr"))
    evil = checkpoint / "parts" / "evil"
    torch.save(Evil(tmp_path / "was run"), evil)
    index.storage_data[key] = type(index.storage_data[key])("evil", 0, evil.stat().st_size)
    path.write_bytes(pickle.dumps(index))
    refused(checkpoint, "does not fit this run")
    assert not (tmp_path / "was run").exists()


def test_code_in_a_rank_s_own_file_is_not_run(checkpoint, tmp_path):
    torch.save({"random": Evil(tmp_path / "was run")}, checkpoint / "rank-0.pt")
    refused(checkpoint, "rank-0.pt holds pickled Python objects")
    assert not (tmp_path / "was run").exists()


def test_a_part_outside_the_checkpoint_is_refused(checkpoint):
    path = checkpoint / "parts" / ".metadata"
    index = pickle.loads(path.read_bytes())
    for part in index.storage_data.values():
        part.relative_path = "../../../" + part.relative_path
    path.write_bytes(pickle.dumps(index))
    refused(checkpoint, "none of a checkpoint's own")


def test_a_part_that_is_no_plain_tensor(checkpoint):
    path = checkpoint / "parts" / ".metadata"
    index = pickle.loads(path.read_bytes())
    key = next(key for key in index.storage_data if key.fqn.endswith("weight"))
    odd = checkpoint / "parts" / "odd"
    torch.save(torch.sparse_coo_tensor(torch.zeros(2, 0), torch.zeros(0), (2**30, 2**30)), odd)
    index.storage_data[key] = type(index.storage_data[key])("odd", 0, odd.stat().st_size)
    path.write_bytes(pickle.dumps(index))
    refused(checkpoint, "odd holds sparse tensors")


@pytest.mark.parametrize("cut", [0, 1, 100, 1000, -1])
def test_a_cut_index(checkpoint, cut):
    path = checkpoint / "parts" / ".metadata"
    path.write_bytes(path.read_bytes()[:cut])
    refused(checkpoint, "is no list of a training checkpoint's parts")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",
        b"\x80\x04\x96\xff\xff\xff\xff\x01\x00\x00\x00.",
        b"\x82\x01.",
        b"(" * 10**6,
        DOUBLED,
    ],
)
def test_an_index_that_only_takes_memory(checkpoint, data):
    (checkpoint / "parts" / ".metadata").write_bytes(data)
    refused(checkpoint, "is no list of a training checkpoint's parts")


def test_an_index_with_any_byte_changed_ends_in_our_own_error_or_is_read(checkpoint):
    path = checkpoint / "parts" / ".metadata"
    data, draw = path.read_bytes(), random.Random(0)
    for _ in range(200):
        place = draw.randrange(len(data))
        changed = data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
        path.write_bytes(changed)
        with bounded(), contextlib.suppress(CheckpointError):
            read_index(path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "[" * 100_000, "null", '{"step": 3}', "step"],
)
def test_a_damaged_position(checkpoint, content):
    (checkpoint / "position.json").write_text(content)
    refused(checkpoint, "not a training checkpoint")


@pytest.mark.parametrize("change", [{"step": -1}, {"step": "3"}, {"batch": [6]}, {"samples": 1e300}, {"losses": 3}])
def test_a_position_of_nonsense(checkpoint, change):
    path = checkpoint / "position.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(checkpoint, "not a training checkpoint")


@pytest.mark.parametrize("own", [{}, {"random": 3}, {"random": {"torch": torch.zeros(3)}}, 3])
def test_a_rank_s_file_of_nonsense(checkpoint, own):
    torch.save(own, checkpoint / "rank-0.pt")
    refused(checkpoint, "rank-0.pt")
