"""Files and folders are there whole or not at all, whoever writes beside them and whenever one is killed."""

import errno
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest
from writers import REPO, left_over

from faceclip.files import whole

MODEL_ENDINGS = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".onnx", ".sft", ".pkl"}  # the host's, and ours


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_at_the_end_and_not_before(tmp_path):
    with whole.writing(tmp_path / "a.pt") as file:
        file.write(b"new")
        (partial,) = tmp_path.iterdir()
        assert partial.name.startswith(".a.pt.") and partial.suffix not in MODEL_ENDINGS
    assert names(tmp_path) == ["a.pt"] and (tmp_path / "a.pt").read_bytes() == b"new"
    mask = os.umask(0)
    os.umask(mask)
    assert os.name == "nt" or (tmp_path / "a.pt").stat().st_mode & 0o777 == 0o666 & ~mask  # others may read it


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), RuntimeError("cancelled")])
def test_an_interrupted_write_changes_nothing(tmp_path, stop):
    whole.write(tmp_path / "a", b"old")
    with pytest.raises(type(stop)), whole.writing(tmp_path / "a") as file:
        file.write(b"half")
        raise stop
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("write", ["writing", "writing_folder"])
def test_what_a_killed_process_left_is_cleared_by_the_next_write_into_the_folder(tmp_path, write):
    left = left_over(tmp_path / "big.safetensors", write)
    assert left.suffix not in MODEL_ENDINGS and left.name.startswith(".")
    whole.write(tmp_path / "other", b"")
    assert names(tmp_path) == ["other"]


@pytest.mark.skipif(os.name == "nt", reason="there only the age tells")
def test_what_was_killed_a_moment_ago_is_cleared_at_once(tmp_path):
    os.utime(left_over(tmp_path / "a"))
    whole.clear(tmp_path)
    assert names(tmp_path) == []


def test_what_another_one_is_writing_stays_however_old_it_looks(tmp_path):
    with whole.writing(tmp_path / "a") as file, whole.writing_folder(tmp_path / "b") as folder:
        file.write(b"slow")
        for partial in tmp_path.iterdir():
            os.utime(partial, (0, 0)) if whole.fcntl else None
        subprocess.run(
            [sys.executable, "-c", "import sys; from faceclip.files import whole; whole.clear(sys.argv[1])", tmp_path],
            cwd=REPO,
            check=True,
        )
        whole.clear(tmp_path)
        (folder / "inside").write_bytes(b"")
    assert names(tmp_path) == ["a", "b"] and (tmp_path / "a").read_bytes() == b"slow"


def test_another_machines_file_is_told_by_its_age_since_locks_may_not_reach_there(tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "_machine", lambda: "0" * 8)  # ours cannot be in two places
    with whole.writing(tmp_path / "a") as file:
        file.write(b"slow")
        monkeypatch.undo()
        whole.clear(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"slow"


def test_only_our_own_unfinished_files_are_cleared(tmp_path):
    others = [".a.partial", ".a.incomplete", "a.faceclip-partial", ".a.0123.faceclip-partial", ".a.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    whole.clear(tmp_path)
    whole.clear(tmp_path / "not there")
    assert names(tmp_path) == sorted(others)


def test_a_taken_name_is_refused_and_left_alone(tmp_path):
    whole.write(tmp_path / "a", b"first", replace=False)
    with pytest.raises(FileExistsError):
        whole.write(tmp_path / "a", b"second", replace=False)
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_want_a_free_name_one_gets_it(tmp_path, monkeypatch, links):
    """In one process, so all with one process id, as in two containers. Without links: as on exFAT, made up."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    got, start = Counter(), threading.Barrier(8)

    def save(number):
        for name in range(20):
            start.wait()
            try:
                whole.write(tmp_path / str(name), str(number).encode(), replace=False)
                got[name, number] += 1
            except FileExistsError:
                pass

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for name, _ in got) == list(range(20))
    assert all((tmp_path / str(name)).read_bytes() == str(number).encode() for name, number in got)
    assert len(names(tmp_path)) == 20


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    for content in (b"old", b"new"):
        with whole.writing_folder(tmp_path / "data") as folder:
            (folder / content.decode()).write_bytes(content)
    with pytest.raises(RuntimeError), whole.writing_folder(tmp_path / "data") as folder:
        (folder / "half").write_bytes(b"")
        raise RuntimeError
    assert names(tmp_path) == ["data"] and names(tmp_path / "data") == ["new"]


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path):
    name = "é" * 125 + ".pt"
    whole.write(tmp_path / name, b"")
    assert names(tmp_path) == [name]
