"""A run's file: what is right is read, what is wrong is named."""

import re
import sys
from pathlib import Path

import pytest

from faceclip.errors import InputError
from faceclip.train import run_file

ALIGNMENT = """
kind = "alignment"
[run]
output = "out"
steps = 1000
batch_size = 256
learning_rate = 1
trackers = ["tensorboard"]
[data]
shards = ["shards/*.tar", "https://host/{0..9}.tar"]
[model]
clip_l = "l.safetensors"
clip_g = "g.safetensors"
face = "face.pt"
[alignment]
branches = ["l", "g"]
text = 0.5
"""
DIFFUSION = """
kind = "diffusion"
[run]
output = "/absolute/out"
steps = 10
batch_size = 1
precision = "bf16"
ema = 0.9999
[data]
shards = ["a.tar"]
[model]
faceclip = "f.safetensors"
unet = "u.safetensors"
vae = "v.safetensors"
[diffusion]
min_snr_gamma = 5
"""

needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomli may be missing")
pytestmark = needs_toml


@pytest.fixture
def load(tmp_path):
    for name in ("l", "g", "f", "u", "v"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "face.pt").touch()

    def load(text: str) -> run_file.Config:
        (tmp_path / "run.toml").write_text(text)
        return run_file.load(tmp_path / "run.toml")

    return load


def test_an_alignment_run_is_read(load, tmp_path):
    found = load(ALIGNMENT)
    assert found.kind == "alignment"
    assert found.run == run_file.Settings(
        tmp_path / "out", 1000, 256, learning_rate=1.0, trackers=("tensorboard",), schedule="cosine"
    )
    assert isinstance(found.run.learning_rate, float)
    assert found.data.shards == (str(tmp_path / "shards/*.tar"), "https://host/{0..9}.tar")
    assert found.model.clip_l == tmp_path / "l.safetensors" and found.model.unet is None
    assert found.stage == run_file.Alignment(branches=("l", "g"), face=1.0, text=0.5, image=1.0)


def test_a_diffusion_run_is_read_and_its_table_may_be_left_out(load):
    found = load(DIFFUSION)
    assert found.run.output == Path("/absolute/out")
    assert found.stage == run_file.Diffusion(drop=0.1, min_snr_gamma=5.0, resolution=1024)
    assert load(DIFFUSION.split("[diffusion]")[0]).stage == run_file.Diffusion()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 1000", "stepz = 1000", "[run] stepz: the table has no field 'stepz'; did you mean 'steps'?"),
        ("steps = 1000", "", "[run] steps: missing, a whole number wanted"),
        ("steps = 1000", 'steps = "many"', "[run] steps: 'many' given, a whole number wanted"),
        ("steps = 1000", "steps = 1.5", "[run] steps: 1.5 given, a whole number wanted"),
        ("steps = 1000", "steps = true", "[run] steps: True given, a whole number wanted"),
        ("steps = 1000", "steps = 0", "[run] steps: 0 given, at least 1 wanted"),
        ("learning_rate = 1", "learning_rate = nan", "[run] learning_rate: nan given, a finite number wanted"),
        ("learning_rate = 1", "learning_rate = 0", "[run] learning_rate: 0.0 given, more than 0 wanted"),
        ("learning_rate = 1", "ema = 1.0", "[run] ema: 1.0 given, less than 1 wanted"),
        (
            "learning_rate = 1",
            'schedule = "step"',
            "[run] schedule: 'step' given, one of cosine, linear, ",
        ),
        (
            "learning_rate = 1",
            "gradient_checkpointing = 1",
            "[run] gradient_checkpointing: 1 given, true or false",
        ),
        ('["tensorboard"]', '["tensorbord"]', "[run] trackers: 'tensorbord' given, one of tensorboard, "),
        ('["tensorboard"]', '"tensorboard"', "[run] trackers: 'tensorboard' given, a list of texts wanted"),
        ("[data]", "[date]", "[date]: the file has no table [date]; did you mean [data]?"),
        ('kind = "alignment"', "", "kind: missing, one of alignment, diffusion wanted"),
        ('kind = "alignment"', 'kind = "aligment"', "kind: 'aligment' given, one of alignment, diffusion wanted"),
        ('kind = "alignment"', 'kind = "diffusion"', "[alignment]: this table is of another kind of run"),
        ("text = 0.5", "text = -1", "[alignment] text: -1.0 given, at least 0 wanted"),
        ("text = 0.5", "text = 0\nface = 0\nimage = 0", "[alignment] face, text, image: all three weights are 0"),
        ('["l", "g"]', '["l", "h"]', "[alignment] branches: 'h' given, one of l, g wanted"),
        ('["l", "g"]', "[]", "[alignment] branches: [] given, one or both of l, g wanted"),
        (
            'clip_l = "l.',
            'clip_l = "missing.',
            "[model] clip_l: {folder}/missing.safetensors given, but there",
        ),
        ('face = "face.pt"', "", "[model] face: missing, a path wanted: kind = 'alignment' needs clip_l, clip_g, "),
        ('["shards/*.tar", "https://host/{0..9}.tar"]', "[]", "[data] shards: an empty list given, at least one path"),
        ('["shards/*.tar", "https://host/{0..9}.tar"]', "[1]", "[data] shards: [1] given, a list of texts wanted"),
        ("[run]", "[run", "not a TOML file"),
    ],
)
def test_a_mistake_is_named_with_file_table_field_value_and_what_is_wanted(load, tmp_path, old, new, message):
    assert ALIGNMENT.count(old) == 1
    with pytest.raises(InputError, match=re.escape(message.replace("{folder}", str(tmp_path)))) as error:
        load(ALIGNMENT.replace(old, new))
    assert str(error.value).startswith(str(tmp_path / "run.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'vae = "v.safetensors"',
            "",
            "[model] vae: missing, a path wanted: kind = 'diffusion' needs faceclip, unet",
        ),
        ("min_snr_gamma = 5", "min_snr_gamma = 0", "[diffusion] min_snr_gamma: 0.0 given, more than 0 wanted"),
        ("min_snr_gamma = 5", "drop = 1", "[diffusion] drop: 1.0 given, less than 1 wanted"),
        ("min_snr_gamma = 5", "face_weight = 0", "[diffusion] face_weight: 0.0 given, more than 0 wanted"),
        ("min_snr_gamma = 5", "resolution = 1001", "[diffusion] resolution: 1001 given, a multiple of 8 wanted"),
    ],
)
def test_a_mistake_of_a_diffusion_run_is_named(load, old, new, message):
    with pytest.raises(InputError, match=re.escape(message)):
        load(DIFFUSION.replace(old, new))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none.toml: cannot be read"):
        run_file.load(tmp_path / "none.toml")


def test_going_on_from_a_faceclip_needs_only_the_teachers_of_its_branches(load):
    text = ALIGNMENT.replace('clip_g = "g.safetensors"\nface = "face.pt"', 'faceclip = "f.safetensors"')
    assert load(text.replace('["l", "g"]', '["l"]')).stage.branches == ("l",)
    with pytest.raises(InputError, match=re.escape("[model] clip_g: missing")):
        load(text)
    assert load(text + "image = 0").model.clip_g is None


@pytest.mark.parametrize("name", ["ddp_one_node", "ddp_many_nodes", "fsdp"])
def test_launch_files_are_what_accelerate_takes(name):
    pytest.importorskip("accelerate", reason="training's own requirements are not installed")
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    found = load_config_from_file(str(Path(run_file.__file__).parent / "accelerate" / f"{name}.yaml"))
    assert found.distributed_type == ("FSDP" if name == "fsdp" else "MULTI_GPU")
    options = {action.dest for action in launch_command_parser()._actions}
    assert set(found.fsdp_config or {}) <= options
