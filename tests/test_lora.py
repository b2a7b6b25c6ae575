"""FaceCLIP's difference from its base as a LoRA: what is kept, what is said, and going on after a stop."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from seeded import seeded

from faceclip import lora
from faceclip.__main__ import main
from faceclip.sampling import difference, unet_file, unet_layout
from faceclip.sampling.unet_config import expected_shapes
from faceclip.small.models import UNET as SIZES

SHAPES = expected_shapes(SIZES)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A base, as a UNet and as a single-file checkpoint, and what was tuned from it: by rank 3 where it is a matrix."""
    folder = tmp_path_factory.mktemp("lora")
    base, tuned = seeded(SHAPES), {}
    for key, value in base.items():
        change = 0.01 * torch.ones_like(value)
        if value.ndim > 1:
            rows = seeded({f"up {key}": (value.shape[0], 3), f"down {key}": (3, value[0].numel())})
            change = 0.1 * (rows[f"up {key}"] @ rows[f"down {key}"]).reshape(value.shape)
        tuned[key] = value + change
    unet_file.save(base, SIZES, folder / "base.safetensors")
    unet_file.save(tuned, SIZES, folder / "unet.safetensors")
    names = unet_layout.original_names(SIZES)
    single = {f"model.diffusion_model.{names[key]}": value for key, value in base.items()}
    save_file(single | {"first_stage_model.quant_conv.weight": torch.zeros(8)}, folder / "checkpoint.safetensors")
    return folder


def make(files, out, *more, rank=3, base="base.safetensors"):
    options = ["--base", str(files / base), "--rank", str(rank), "--out", str(out), "--dtype", "fp32", *more]
    return main(["lora", str(files / "unet.safetensors"), *options])


def joined(state, key):
    name = "lora_unet_" + key.rpartition(".")[0].replace(".", "_")
    up, down = state[f"{name}.lora_up.weight"].flatten(1), state[f"{name}.lora_down.weight"].flatten(1)
    return state[f"{name}.alpha"] / len(down) * (up @ down)


@pytest.mark.parametrize("base", ["base.safetensors", "checkpoint.safetensors"])
def test_enough_rank_reproduces_the_difference(files, tmp_path, capsys, base):
    assert make(files, tmp_path / "a.safetensors", base=base) == 0
    state, ours, theirs = (load_file(path) for path in (tmp_path / "a.safetensors", *_unets(files)))
    for key, shape in SHAPES.items():
        wanted = ours[key] - theirs[key]
        if len(shape) > 1:
            assert (joined(state, key).reshape(shape) - wanted).abs().max() < 1e-4 * wanted.abs().max(), key
    assert sum(key.endswith((".diff", ".diff_b")) for key in state) == sum(len(shape) == 1 for shape in SHAPES.values())
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["kept,", "%", "at", "rank", *map(str, sorted({3, *difference.RANKS}))]
    levels = range(len(SIZES.block_out_channels))
    names = [*(f"down_blocks.{i}" for i in levels), "mid_block", *(f"up_blocks.{i}" for i in levels)]
    assert [line[:16].strip() for line in said[1:10]] == ["in and out", *names, "all"]
    assert {line.split()[-1] for line in said[1:10]} == {"100.0"}  # rank 256 is enough for three directions
    assert not list(tmp_path.glob(".*"))


def _unets(files):
    return files / "unet.safetensors", files / "base.safetensors"


def test_less_rank_keeps_less_and_says_how_much(files, tmp_path, capsys):
    assert make(files, tmp_path / "a.safetensors", rank=1) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[:9]]
    one = head.index("1") - len(head)
    shares = [float(row[one]) for row in rows]
    assert all(30 < share < 75 for share in shares), shares  # of three directions of about the same size


def test_a_stopped_command_goes_on(files, tmp_path, monkeypatch):
    out, done = tmp_path / "a.safetensors", []
    real = difference.lora

    def stop(tuned, base, keys, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(keys[0])
        return real(tuned, base, keys, *rest)

    monkeypatch.setattr(difference, "lora", stop)
    assert make(files, out) == 130 and not out.exists()
    again = []
    monkeypatch.setattr(difference, "lora", lambda *given: again.append(given[2][0]) or real(*given))
    assert make(files, out) == 0
    assert len(again) == 6 and not set(again) & set(done)
    whole = tmp_path / "b.safetensors"
    assert make(files, whole) == 0 and load_file(whole).keys() == load_file(out).keys()
    assert all(torch.equal(value, load_file(whole)[key]) for key, value in load_file(out).items())


def test_another_rank_starts_anew(files, tmp_path):
    parts = lora.Parts(tmp_path / "a.safetensors", "plan of rank 3")
    parts.put("mid_block", {"a": torch.zeros(1)}, difference.Kept(1.0, 0.0, {3: 1.0}))
    assert parts.kept("mid_block").share(3) == 1.0
    assert lora.Parts(tmp_path / "a.safetensors", "plan of rank 4").kept("mid_block") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--rank", "0"), "--rank is 0, wanted a whole number from 1"),
        (("--out", "a.ckpt"), "--out is a.ckpt, wanted a name that ends in .safetensors"),
    ],
)
def test_wrong_options_are_named(files, tmp_path, capsys, change, words):
    assert make(files, tmp_path / "a.safetensors", *change) == 1
    assert words in capsys.readouterr().err


def test_equal_files_and_other_models_are_refused(files, tmp_path, capsys):
    assert make(files, tmp_path / "a.safetensors", base="unet.safetensors") == 1
    assert "hold the same UNet" in capsys.readouterr().err
    save_file({"conv_in.weight": torch.zeros(32, 9, 3, 3)}, files / "other.safetensors")
    assert make(files, tmp_path / "a.safetensors", base="other.safetensors") == 1
    assert "other.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()
