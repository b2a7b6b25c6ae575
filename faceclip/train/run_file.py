"""A run's file: one TOML file, checked before anything heavy is loaded.

    kind = "alignment"                 # or "diffusion"
    [run]                              # Settings
    output = "out/alignment"           # paths are relative to the file
    steps = 100000
    batch_size = 256
    [data]                             # Data
    shards = ["shards/*.tar"]
    [model]                            # Model
    clip_l = "weights/metaclip_l14.safetensors"
    [alignment]                        # Alignment, or [diffusion] with Diffusion
    [validation]                       # Validation; may be left out
    shards = ["held-out/*.tar"]

Every error names the file, the table and the field, the value seen and what is wanted.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from ..errors import InputError
from ..files.table import TABLE, FileOrFolder, Flag, ListOfTexts, LocalPath, Number, Texts, Whole, check, unknown
from ..files.toml import read_toml

KINDS = ("alignment", "diffusion")
Branch = Literal["l", "g"]
BRANCHES: tuple[Branch, ...] = ("l", "g")
Tracker = Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio"]
_AboveZero = Annotated[Number, Field(gt=0)]
_FromZero = Annotated[Number, Field(ge=0)]
_Share = Annotated[Number, Field(ge=0, lt=1)]
_FromOne = Annotated[Whole, Field(ge=1)]


@dataclass(frozen=True, config=TABLE)
class Settings:
    """[run]: what the engine needs. Raises pydantic's ValidationError, a ValueError, for a field out of range."""

    output: LocalPath
    steps: _FromOne  # of the optimiser, of `accumulate` micro steps each
    batch_size: _FromOne  # per process and micro step
    # A cap of wall-clock time: the learning rate then follows whichever of steps and minutes is further on, and such a
    # run is not repeatable bit for bit.
    minutes: _AboveZero | None = None
    seed: Annotated[Whole, Field(ge=0)] = 0
    accumulate: _FromOne = 1
    # adafactor keeps no moments but sums of rows and columns; adamw8bit (bitsandbytes) keeps them in a byte each.
    optimizer: Literal["adamw", "adamw8bit", "adafactor"] = "adamw"
    learning_rate: _AboveZero = 1e-4
    # By what the rate of a part is multiplied, by a piece of its weights' names: {up_blocks = 2.0, mid_block = 0.5}.
    rates: dict[str, _AboveZero] = dataclasses.field(default_factory=dict)
    warmup: Annotated[Whole, Field(ge=0)] = 100  # steps from zero to learning_rate
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # from there to zero at the end
    weight_decay: _FromZero = 0.01
    beta2: _Share = 0.999  # AdamW's second; adafactor has none
    max_grad_norm: _AboveZero = 1.0
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: Flag = False
    compile: Flag = False  # torch.compile
    ema: _Share = 0.0  # decay of the moving average of the weights, 0 for none
    save_every: _FromOne = 1000
    keep: _FromOne = 2  # checkpoints
    log_every: _FromOne = 50
    peak_tflops: _AboveZero | None = None  # of one GPU in `precision`, as its maker says: the log then tells the MFU
    trackers: Annotated[tuple[Tracker, ...], ListOfTexts] = ()


def _some_shards(shards: tuple[str, ...]) -> tuple[str, ...]:
    if not shards:
        raise ValueError("an empty list given, at least one path, glob or URL wanted")
    return shards


@dataclass(frozen=True, config=TABLE)
class Data:
    """[data]."""

    shards: Annotated[Texts, AfterValidator(_some_shards)]  # paths, globs or URLs
    workers: Annotated[Whole, Field(ge=0)] = 4  # processes that decode, for each training process
    shuffle: _FromOne = 2  # how many shards a worker reads at a time
    cached: Flag = False  # the shards are what `faceclip cache` wrote
    paired: Annotated[Number, Field(ge=0, le=1)] = 0.0  # share of samples with a face from another photo of the person
    buffer: _FromOne = 256  # samples that a worker mixes with each other, and holds in memory as they are in the shard


@dataclass(frozen=True, config=TABLE)
class Validation:
    """[validation]: samples that are not trained on; may be left out."""

    shards: Annotated[Texts, AfterValidator(_some_shards)]
    every: _FromOne = 1000  # steps
    batches: _FromOne = 8  # of [run] batch_size, for each process; always the same
    pictures: Annotated[Whole, Field(ge=0)] = 4  # on the sheet of stage B, of the first batch
    steps: Annotated[Whole, Field(ge=1, le=999)] = 25  # of the sampler
    guidance: _FromZero = 5.0
    detector: FileOrFolder | None = None  # YuNet's .onnx file or an InsightFace pack, for the likeness on the sheet


@dataclass(frozen=True, config=TABLE)
class Model:
    """[model]: files to start from. Without `faceclip`, stage A starts from the public towers."""

    faceclip: FileOrFolder | None = None  # a FaceCLIP checkpoint
    clip_l: FileOrFolder | None = None  # a CLIP in open_clip's layout, and so is clip_g
    clip_l_name: str | None = "ViT-L-14-quickgelu"  # open_clip's name of its sizes, where the file does not tell them
    clip_g: FileOrFolder | None = None
    clip_g_name: str | None = "ViT-bigG-14"
    face: FileOrFolder | None = None  # a face recognition ViT
    face_heads: _FromOne = 8
    unet: FileOrFolder | None = None  # SDXL's
    vae: FileOrFolder | None = None  # SDXL's; a file, or a folder of diffusers


@dataclass(frozen=True, config=TABLE)
class Terms:
    """Weights of stage A's three loss terms; 0 leaves one out."""

    face: _FromZero = 1.0
    text: _FromZero = 1.0
    image: _FromZero = 1.0

    def __post_init__(self):
        if not self.face + self.text + self.image:
            raise ValueError("face, text, image: all three weights are 0, at least one above 0 wanted")


def _each_once(branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
    if not branches or len(set(branches)) != len(branches):
        raise ValueError(f"{list(branches)} given, one or both of {', '.join(BRANCHES)} wanted")
    return branches


@dataclass(frozen=True, config=TABLE)
class Alignment(Terms):
    """[alignment]: the terms, and the branches to train."""

    branches: Annotated[tuple[Branch, ...], ListOfTexts, AfterValidator(_each_once)] = BRANCHES


@dataclass(frozen=True, config=TABLE)
class Objective:
    """What stage B's loss weighs."""

    drop: _Share = 0.1  # share of samples trained without conditioning, for guidance
    drop_face: _Share = 0.0  # share that sees the caption alone
    drop_text: _Share = 0.0  # share that sees the face alone; both of these are drawn apart
    min_snr_gamma: _AboveZero | None = None  # for min-SNR weighting, 5 is usual; None trains all times alike
    # Spread of what is added to the noise of a whole channel. SDXL's largest noise leaves the mean of a small latent to
    # be seen, which a model then trusts, and pure noise gives its pictures a random tint; 0.2 hides the mean of
    # 16 x 16 cells.
    noise_offset: _FromZero = 0.0
    face_weight: _AboveZero = 1.0  # how many times the error counts on a face; a picture's weights have the mean 1


@dataclass(frozen=True, config=TABLE)
class Diffusion(Objective):
    """[diffusion]: the objective and the pictures."""

    resolution: Annotated[Whole, Field(ge=64, multiple_of=8)] = 1024  # px a side; the VAE's cells are 8 px
    buckets: Flag = True  # pictures in SDXL's shapes of about that area; else squares
    lora: Annotated[Whole, Field(ge=0)] = 0  # rank of a LoRA on the UNet's attention; 0 trains the whole UNet
    flip: Flag = False  # half of the pictures mirrored; captions stay as they are


Held = TypeVar("Held", Data, Validation)


@dataclasses.dataclass(frozen=True)
class Config:
    """A run. stage: what the table named after `kind` says."""

    kind: str
    run: Settings
    data: Data
    model: Model
    stage: Alignment | Diffusion
    validation: Validation | None = None


def load(path: str | Path) -> Config:
    """Reads and checks a run's file. Raises InputError for the first thing that is wrong in it."""
    path = Path(path)
    root = read_toml(path)
    try:
        kind = root.get("kind")
        if kind not in KINDS:
            seen = "missing" if kind is None else f"{kind!r} given"
            raise InputError(f"kind: {seen}, one of {', '.join(KINDS)} wanted")
        known = {"kind", "run", "data", "model", "validation", kind}
        for name in root:
            if name in KINDS and name != kind:
                raise InputError(f"[{name}]: this table is of another kind of run, but kind is {kind!r}: remove one")
            if name not in known:
                raise InputError(f"[{name}]: the file has no table [{name}]; {unknown(name, sorted(known), '[{}]')}")
        for name in ("run", "data", "model"):
            if name not in root:
                raise InputError(f"[{name}]: the table is missing")
        config = Config(
            kind,
            check(Settings, root["run"], "[run]", path.parent),
            _absolute(check(Data, root["data"], "[data]"), path.parent),
            check(Model, root["model"], "[model]", path.parent),
            check(Alignment if kind == "alignment" else Diffusion, root.get(kind, {}), f"[{kind}]"),
            _held_out(root.get("validation"), path.parent),
        )
        _check_files(config)
        return config
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _held_out(table: Any, base: Path) -> Validation | None:
    return None if table is None else _absolute(check(Validation, table, "[validation]", base), base)


def _absolute(data: Held, base: Path) -> Held:
    local = [shard if "://" in shard or shard.startswith("pipe:") else str(base / shard) for shard in data.shards]
    return dataclasses.replace(data, shards=tuple(local))


def _check_files(config: Config) -> None:
    """What this kind of run needs of [model]."""
    stage = config.stage
    if isinstance(stage, Diffusion):
        needed = ["faceclip", "unet", *(() if config.data.cached else ("vae",))]
    else:
        needed = [f"clip_{branch}" for branch in stage.branches] if stage.image and not config.data.cached else []
        needed += [] if config.model.faceclip else ["clip_l", "clip_g", "face"]
    for name in needed:
        if getattr(config.model, name) is None:
            needs = ", ".join(dict.fromkeys(needed))
            raise InputError(f"[model] {name}: missing, a path wanted: kind = {config.kind!r} needs {needs}")
