"""``python -m faceclip train RUN.toml``: one training run, alone or under `accelerate launch` or `torchrun`."""

import argparse
import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..faces.detect.insight import InsightFace
from ..faces.detect.yunet import YuNet
from ..install.published import sha256
from ..sampling import unet_file
from . import run_file, towers
from .adapter import add_lora
from .alignment import Alignment
from .cached_sample import CachedSample, check
from .diffusion import Diffusion, new_unet
from .run_file import Config
from .samples import AlignmentSample, DiffusionSample

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .examination import Examination
    from .shard_reader import ShardData

log = logging.getLogger(__name__)

_WITHOUT_VISION = 64  # px: pictures that nothing reads
# What may differ when a run goes on: where it writes, how often, and to whom it tells. The engine itself tells of
# another batch or number of processes, and the data of other workers.
_FREE = {f"run.{name}" for name in ("output", "save_every", "keep", "log_every", "trackers", "batch_size")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the run's TOML file; see docs/training.md")
    parser.add_argument(
        "--allow-change",
        action="append",
        default=[],
        metavar="FIELD",
        help="go on from a checkpoint though this field has changed, such as run.steps; may be given several times",
    )


def run(arguments: argparse.Namespace) -> int:
    """The command: 0 when the run is finished, 1 when a signal stopped it (give the same command to go on)."""
    settings = run_file.load(arguments.file)
    from .engine import train

    accelerator, module, data = prepared(settings)
    result = train(
        module,
        data,
        settings.run,
        lambda trained, folder: trained.export(folder),
        accelerator,
        made_of(settings, data.urls),
        arguments.allow_change,
        held_out(settings, data, accelerator),
    )
    if accelerator.is_main_process:
        log.info(
            "%s at step %d, loss %.5g", "stopped" if result.stopped else "done", result.step, result.losses["loss"]
        )
    return int(result.stopped)


def prepared(settings: Config) -> tuple["Accelerator", Alignment | Diffusion, "ShardData"]:
    """What a run's file comes to, ready to be trained."""
    # Heavy imports come after the file is known to be good.
    from .processes import make_accelerator
    from .shard_reader import ShardData

    accelerator = make_accelerator(settings.run)
    logging.basicConfig(
        level=logging.INFO if accelerator.is_main_process else logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    stage, given = settings.stage, settings.data
    if isinstance(stage, run_file.Alignment):
        module = build_alignment(settings, accelerator.process_index, accelerator.num_processes)
        sides = [max(tower.size) for tower in module.vision.values() if isinstance(tower, towers.VisionTower)]
        decode = AlignmentSample(max(sides, default=_WITHOUT_VISION), given.paired)
    else:
        module = build_diffusion(settings)
        decode = DiffusionSample(stage.resolution, stage.face_weight != 1, stage.buckets, given.paired, stage.flip)
    if given.cached:
        decode = CachedSample()
    data = ShardData(given.shards, decode, given.workers, given.shuffle, given.buffer)
    if given.cached:
        check(data.urls[0], models_of(settings))
    return accelerator, module, data


def held_out(settings: Config, data: "ShardData", accelerator: "Accelerator") -> "Examination | None":
    """What the run's [validation] comes to."""
    from .examination import Examination
    from .shard_reader import ShardData
    from .validation import OfAlignment, OfDiffusion, batches_of

    chosen = settings.validation
    if chosen is None:
        return None
    some = ShardData(chosen.shards, data.decode, workers=0, shuffle=1, buffer=settings.data.buffer)
    if both := sorted(set(some.urls) & set(data.urls)):
        raise InputError(f"[validation] shards: {both[0]} is trained on as well: shards of their own wanted")
    rank, world = accelerator.process_index, accelerator.num_processes
    detector = None
    if accelerator.distributed_type == "FSDP":
        chosen = dataclasses.replace(chosen, pictures=0)  # the sampler calls parts of the module
    if chosen.detector is not None:
        detector = InsightFace(chosen.detector) if chosen.detector.is_dir() else YuNet(chosen.detector)
    of_diffusion = OfDiffusion(chosen, settings.run.output, detector)
    examiner = OfAlignment() if isinstance(settings.stage, run_file.Alignment) else of_diffusion
    return Examination(chosen.every, batches_of(some, chosen, settings.run.batch_size, rank, world), examiner)


def models_of(settings: Config) -> dict[str, str]:
    """The run's models by their content, hashes by field."""
    files = {name: value for name, value in dataclasses.asdict(settings.model).items() if isinstance(value, Path)}
    return {f"model.{name}": _content(path) for name, path in files.items()}


def made_of(settings: Config, shards: Sequence[str]) -> dict[str, Any]:
    """What decides how a run ends, by table and field: its settings, the shards, and its models by their content."""
    tables = {"run": settings.run, settings.kind: settings.stage, "model": settings.model}
    found: dict[str, Any] = {
        f"{table}.{name}": value
        for table, fields in tables.items()
        for name, value in dataclasses.asdict(fields).items()
        if f"{table}.{name}" not in _FREE and not isinstance(value, Path)
    }
    found |= models_of(settings)
    # Not where they lie: a run may go on on another machine.
    names = [PurePosixPath(Path(url).as_posix()).name if "://" not in url else url for url in shards]
    data = {f"data.{name}": getattr(settings.data, name) for name in ("shuffle", "buffer", "paired", "cached")}
    return found | {"data.shards": names, **data, "kind": settings.kind}


def _content(path: Path) -> str:
    """The SHA-256 of a file; of a folder, that of its files' names and hashes."""
    if not path.is_dir():
        return sha256(path)
    inside = sorted(one for one in path.rglob("*") if one.is_file())
    lines = "".join(f"{one.relative_to(path).as_posix()} {sha256(one)}\n" for one in inside)
    return hashlib.sha256(lines.encode()).hexdigest()


def build_alignment(settings: Config, rank: int = 0, world_size: int = 1) -> Alignment:
    """Stage A's module: a FaceCLIP to go on with, or a new one out of public towers; and the vision towers."""
    files, stage = settings.model, settings.stage
    assert isinstance(stage, run_file.Alignment)
    clips = {
        letter: towers.load_clip(getattr(files, f"clip_{letter}"), getattr(files, f"clip_{letter}_name"))
        for letter in ("l", "g")
        if getattr(files, f"clip_{letter}")
    }
    if files.faceclip:
        model = towers.load_faceclip(files.faceclip).float()
    else:
        assert files.face is not None  # run_file has seen to it, as to the files below
        encoder = towers.read_face_encoder(files.face, files.face_heads)
        model = towers.new_faceclip(clips, encoder, seed=settings.run.seed)
    seen = () if settings.data.cached else stage.branches
    vision = {letter: towers.VisionTower(clips[letter][0].visual) for letter in seen if letter in clips}
    return Alignment(model, vision, stage, stage.branches, rank, world_size)


def build_diffusion(settings: Config) -> Diffusion:
    """Stage B's module: the UNet to fine-tune, a frozen FaceCLIP and SDXL's VAE."""
    from diffusers import AutoencoderKL

    files, stage = settings.model, settings.stage
    assert isinstance(stage, run_file.Diffusion) and files.faceclip and files.unet
    model = towers.load_faceclip(files.faceclip)
    state, sizes = unet_file.read(files.unet)
    start = new_unet(sizes, state).float()
    if stage.lora:
        add_lora(start, stage.lora, torch.bfloat16 if settings.run.precision == "bf16" else torch.float32)
    empty = model.encode_prompt([""])
    if settings.data.cached:
        return Diffusion(start, empty, stage)
    assert files.vae
    load = AutoencoderKL.from_single_file if files.vae.is_file() else AutoencoderKL.from_pretrained
    vae = load(str(files.vae)).eval()
    return Diffusion(start, empty, stage, model, vae)
