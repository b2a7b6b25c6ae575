"""Training data in shards: split, mixed, resumed without decoding, and what is broken left out and counted."""

import importlib.util
import io
import json
import tarfile

import pytest
import torch

pytest.importorskip("webdataset", reason="training's own requirements are not installed")
pytest.importorskip("accelerate", reason="training's own requirements are not installed")

import train_runs as runs
from bounds import bounded

from faceclip.errors import DependencyError, InputError
from faceclip.train import shard_stream
from faceclip.train.buckets import LeftOut
from faceclip.train.shard_reader import ShardData, expand


def numbers(batches, count: int) -> list[list[int]]:
    return [next(batches)["number"].tolist() for _ in range(count)]


@pytest.fixture
def shards(tmp_path):
    return runs.write_shards(tmp_path / "shards", shards=4, samples=15)


def test_ranks_and_workers_share_an_epoch_and_mix_it(shards):
    found = []
    for rank in range(2):
        data = ShardData(shards, runs.decode, workers=2)
        # Each of four streams has one shard of 15 samples in an epoch.
        found += sum(numbers(data.batches(rank, 2, 5, 0), 6), [])
    assert sorted(found) == list(range(60))
    assert found != sorted(found)


def test_samples_of_several_shards_are_mixed_and_the_seed_decides(shards):
    first = numbers(ShardData(shards, runs.decode, workers=0, shuffle=4).batches(0, 1, 10, 0), 6)
    assert len({number // 15 for number in first[0]}) > 1
    assert numbers(ShardData(shards, runs.decode, workers=0, shuffle=4).batches(0, 1, 10, 0), 6) == first
    assert numbers(ShardData(shards, runs.decode, workers=0, shuffle=4).batches(0, 1, 10, 1), 6) != first
    again = ShardData(shards, runs.decode, workers=0, shuffle=4).batches(0, 1, 10, 0)
    two_epochs = numbers(again, 12)
    assert sorted(sum(two_epochs[6:], [])) == list(range(60)) and two_epochs[6:] != first


class _Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, sample, random):
        self.calls += 1
        return runs.decode(sample, random)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_micro_step_is_reached_without_decoding_what_comes_before(shards, workers):
    whole = list(_take(ShardData(shards, runs.decode, workers).batches(0, 1, 7, 0), 14))
    for start in (1, 4, 9, 11):
        decode = _Counting()
        batch = next(ShardData(shards, decode, workers).batches(0, 1, 7, 0, start))
        assert batch["number"].tolist() == whole[start]["number"].tolist()
        assert torch.equal(batch["right"], whole[start]["right"])  # with decode's random numbers
        if not workers:
            assert decode.calls == 7


def _take(batches, count):
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_saved_state_goes_on_exactly_past_broken_samples(shards, tmp_path, workers):
    _break_sample(tmp_path / "shards" / "0001.tar")
    data = ShardData(shards, runs.decode, workers)
    batches = data.batches(0, 1, 7, 0)
    _take(batches, 9)
    state = json.loads(json.dumps(data.state_dict()))
    expected = numbers(batches, 8)
    again = ShardData(shards, runs.decode, workers)
    again.load_state_dict(state)
    assert numbers(again.batches(0, 1, 7, 0, 9), 8) == expected
    assert again.skipped()["samples"] >= 1


def _break_sample(path) -> None:
    """One vector gets a name that decode knows, and another length."""
    with tarfile.open(path, "a") as tar:
        for name, content in (("999999.npy", b"\0" * 16), ("999999.json", b'{"number": 999999}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_what_is_broken_is_left_out_counted_and_told(shards, tmp_path, caplog):
    folder = tmp_path / "shards"
    _break_sample(folder / "0000.tar")
    (folder / "0001.tar").write_bytes(b"this is no tar file" * 100)
    content = (folder / "0002.tar").read_bytes()
    (folder / "0002.tar").write_bytes(content[: 2048 * 5 + 700])  # five samples and a piece
    data = ShardData(shards, runs.decode, workers=0, shuffle=4)
    found = sum(numbers(data.batches(0, 1, 5, 0), 7), [])
    assert sorted(found) == [*range(15), *range(30, 35), *range(45, 60)]
    assert data.skipped() == {"samples": 1, "shards": 2}
    assert "Sample 999999 of" in caplog.text and "2 numbers, 8 wanted" in caplog.text
    assert f"Shard {folder / '0001.tar'}, from its sample 0 on, is left out" in caplog.text


def test_skipped_samples_are_counted_across_workers_and_logged_by_the_run(shards, tmp_path, caplog):
    _break_sample(tmp_path / "shards" / "0001.tar")
    caplog.set_level("INFO")
    runs.run(tmp_path / "run", lambda: ShardData(shards, runs.decode, workers=2))
    last = [record.getMessage() for record in caplog.records if record.getMessage().startswith("step 12:")]
    assert "skipped_samples 1" in last[0] or "skipped_samples 2" in last[0]


def test_a_filter_leaves_out_without_counting(shards):
    data = ShardData(shards, _even, workers=0)
    assert all(number % 2 == 0 for batch in numbers(data.batches(0, 1, 5, 0), 8) for number in batch)
    assert data.skipped() == {"samples": 0, "shards": 0}


def _even(sample, random):
    decoded = runs.decode(sample, random)
    return decoded if decoded["number"] % 2 == 0 else None


def _nothing(sample, random):
    return None


class _Shapes:
    """Three kinds of samples, of which batches hold one at a time, and a fourth that is left out."""

    reasons = ("small",)

    def group(self, sample):
        kind = json.loads(sample["json"])["number"] % 4
        if kind == 3:
            raise LeftOut("small", "too small")
        return kind

    def __call__(self, sample, random):
        decoded = runs.decode(sample, random)
        return {**decoded, "left": decoded["left"][: 4 + self.group(sample)]}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_one_shape_and_go_on_exactly_with_what_waits(shards, tmp_path, workers):
    _break_sample(tmp_path / "shards" / "0001.tar")
    data = ShardData(shards, _Shapes(), workers, buffer=8)
    batches = data.batches(0, 1, 4, 0)
    found = numbers(batches, 11)
    assert all(len({number % 4 for number in batch}) == 1 for batch in found)
    assert 3 not in {number % 4 for batch in found for number in batch}
    assert data.skipped()["small"] > 0
    state = json.loads(json.dumps(data.state_dict()))
    rest = _take(batches, 14)
    again = ShardData(shards, _Shapes(), workers, buffer=8)
    again.load_state_dict(state)
    for one, other in zip(_take(again.batches(0, 1, 4, 0, 11), 14), rest, strict=True):
        assert one["number"].tolist() == other["number"].tolist() and torch.equal(one["right"], other["right"])


def test_nothing_is_lost_or_seen_twice_where_shapes_wait(shards):
    """Fifteen samples of each kind in an epoch: after five epochs, batches of three have taken each kind whole."""
    batches = ShardData(shards, _Shapes(), workers=0, buffer=8).batches(0, 1, 3, 0)
    found = sum(numbers(batches, 75), [])
    assert {found.count(number) for number in range(60) if number % 4 != 3} == {5}


def test_a_stream_holds_no_more_than_its_buffer(shards, monkeypatch):
    held = []
    place = shard_stream._State.place
    monkeypatch.setattr(
        shard_stream._State, "place", lambda self, *more: held.append(len(self.buffer)) or place(self, *more)
    )
    numbers(ShardData(shards, runs.decode, workers=0, shuffle=2, buffer=10).batches(0, 1, 5, 0), 12)
    assert max(held) <= 10


def test_nothing_usable_is_an_error_and_not_a_wait(shards):
    with pytest.raises(InputError, match="no usable sample in an epoch of 4 shards"):
        next(ShardData(shards, _nothing, workers=0).batches(0, 1, 5, 0))


def test_too_few_shards_for_the_workers_are_refused(shards):
    with pytest.raises(InputError, match="4 shards for 2 processes with 3 workers each"):
        next(ShardData(shards, runs.decode, workers=3).batches(0, 2, 5, 0))


def test_patterns_are_spelt_out(shards, tmp_path):
    folder = tmp_path / "shards"
    assert len(expand([f"{folder}/{{0000..0002}}.tar"])) == 3
    assert len(expand([*shards, str(folder / "0001.tar")])) == 4
    assert expand(["https://host/{0..1}.tar"]) == ["https://host/0.tar", "https://host/1.tar"]
    with pytest.raises(InputError, match="shards: .*none.tar given, but there is no such file"):
        expand([str(folder / "none.tar")])


def test_shards_of_an_object_store_are_listed_and_read(shards, tmp_path):
    """fsspec's own store in memory stands for s3://, gs:// and hf://, which it reads by the same calls."""
    import fsspec

    store = fsspec.filesystem("memory")
    for path in (tmp_path / "shards").iterdir():
        store.pipe(f"/bucket/{path.name}", path.read_bytes())
    found = [
        [url.rpartition("/")[2] for url in expand([f"memory://bucket/{some}.tar"])] for some in ("*", "{0000..0003}")
    ]
    assert found[0] == found[1] and len(found[0]) == 4
    data = ShardData("memory://bucket/*.tar", runs.decode, workers=0, shuffle=4)
    assert sorted(sum(numbers(data.batches(0, 1, 5, 0), 12), [])) == list(range(60))
    with pytest.raises(InputError, match="none-.*given, but there is no such file"):
        expand(["memory://bucket/none-*.tar"])
    with pytest.raises(InputError, match="fsspec knows no nowhere://"):
        expand(["nowhere://bucket/*.tar"])


def test_a_store_whose_package_is_missing_names_it():
    if importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed here")
    with pytest.raises(DependencyError, match="s3://.*s3fs"):
        expand(["s3://bucket/*.tar"])


# ---- shards that lie ----


def test_a_file_whose_name_is_a_command_is_a_file(shards, tmp_path, monkeypatch, caplog):
    """webdataset runs what follows `pipe:`, also where a glob found a file of that name."""
    folder = tmp_path / "shards"
    (folder / "0001.tar").rename(folder / "pipe:touch was_run;.tar")
    monkeypatch.chdir(folder)
    urls = expand(["*.tar"])
    assert "./pipe:touch was_run;.tar" in urls and len(urls) == 4
    data = ShardData(["*.tar"], runs.decode, workers=0, shuffle=4)
    assert sorted(sum(numbers(data.batches(0, 1, 5, 0), 12), [])) == list(range(60))
    assert not (folder / "was_run").exists() and not caplog.text


@pytest.mark.parametrize("pattern", ["{pipe:touch x,b}.tar", "a.tar::pipe:touch x", "${COMMAND}"])
def test_a_command_comes_from_no_brace_list_or_variable(monkeypatch, tmp_path, pattern):
    monkeypatch.setenv("WDS_COMMAND", "pipe:touch x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").touch()
    with pytest.raises(InputError, match="comes to the command pipe:touch x"):
        expand([pattern])


def test_a_command_that_stands_in_the_run_file_is_run(shards, tmp_path):
    url = f"pipe:cat {tmp_path / 'shards' / '0001.tar'}"
    assert expand([url]) == [url]
    data = ShardData(url, runs.decode, workers=0)
    assert sorted(sum(numbers(data.batches(0, 1, 5, 0), 3), [])) == list(range(15, 30))


def _member(name: str, data: bytes = b"", **changes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in changes.items():
        setattr(member, key, value)
    return member, io.BytesIO(data)


def _tar(path, *members, mode="w"):
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            tar.addfile(member, data)


def _holes(path):
    # 64 GB of nothing, as GNU tar writes a file with holes.
    _tar(path, _member("a.npy", b"1\n0\n0\n".ljust(512, b"\0"), pax_headers={
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**36), "GNU.sparse.name": "a.npy",
    }))  # fmt: skip


def _attributes(path):
    _tar(path, _member("a.npy", b"1", pax_headers={"comment": "1" * 900_000}))


def _half(path):
    member, data = _member("a.npy", b"1" * 100)
    with tarfile.open(path, "w") as tar:
        tar.addfile(member, data)
    content = bytearray(path.read_bytes())
    content[124:136] = b"77777777777\0"  # 8 GB
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: _tar(path, _member("a.npy", bytes(300 * 2**20)), mode="w:gz"),
        lambda path: _tar(path, _member("a.npy", bytes(300 * 2**20)), mode="w:bz2"),
        lambda path: _tar(path, *[_member(f"{i}.npy", bytes(2**20)) for i in range(200)], mode="w:gz"),
        _holes,
        _attributes,
        _half,
    ],
    ids=["gz", "bz2", "many", "holes", "attributes", "half"],
)
def test_a_small_shard_that_would_unpack_to_gigabytes_is_left_out(tmp_path, write):
    path = tmp_path / "a.tar"
    write(path)
    assert path.stat().st_size < 1_000_000
    told = []
    with bounded():
        found = list(shard_stream.read(str(path), lambda *what: told.append(what)))
    assert len(found) < 100 and [kind for kind, *_ in told] == ["shards"]


def test_a_packed_shard_is_read(shards, tmp_path):
    folder = tmp_path / "packed"
    folder.mkdir()
    for name in ("gz", "bz2", "xz"):
        with (
            tarfile.open(tmp_path / "shards" / "0001.tar") as plain,
            tarfile.open(folder / name, f"w:{name}") as packed,
        ):
            for member in plain:
                packed.addfile(member, plain.extractfile(member))
        data = ShardData(str(folder / name), runs.decode, workers=0)
        assert sorted(sum(numbers(data.batches(0, 1, 5, 0), 3), [])) == list(range(15, 30))


def test_a_name_that_is_no_text_is_one_sample_like_others(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", encoding="utf-8", errors="surrogateescape") as tar:
        for suffix, content in (("npy", bytes(64)), ("json", b'{"number": 7}')):
            tar.addfile(*_member(f"a\udcff\n.{suffix}", content))
    assert numbers(ShardData(str(tmp_path / "a.tar"), runs.decode, workers=0).batches(0, 1, 1, 0), 1) == [[7]]
