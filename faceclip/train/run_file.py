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

Every error names the file, the table and the field, the value seen and what is wanted.
"""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from ..files.toml import read_toml

KINDS = ("alignment", "diffusion")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("no", "bf16")
BRANCHES = ("l", "g")
TRACKERS = ("tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio")
_WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path, as a text"}

Table = TypeVar("Table")


@dataclass(frozen=True)
class Settings:
    """[run]: what the engine needs. Raises InputError naming a field that is out of range.

    batch_size: per process and micro step. steps: of the optimiser, `accumulate` micro steps each. minutes: a cap of
    wall-clock time; the learning rate then follows whichever of steps and minutes is further on, and such a run is not
    repeatable bit for bit. schedule: from learning_rate to zero at the end, after `warmup` steps from zero.
    beta2: AdamW's second. ema: decay of the moving average of the weights, 0 for none. keep: checkpoints.
    """

    output: Path
    steps: int
    batch_size: int
    minutes: float | None = None
    seed: int = 0
    accumulate: int = 1
    learning_rate: float = 1e-4
    warmup: int = 100
    schedule: str = "cosine"
    weight_decay: float = 0.01
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    precision: str = "no"
    gradient_checkpointing: bool = False
    ema: float = 0.0
    save_every: int = 1000
    keep: int = 2
    log_every: int = 50
    trackers: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "save_every", "keep", "log_every"):
            _range(self, name, 1)
        for name in ("seed", "warmup", "weight_decay"):
            _range(self, name, 0)
        for name in ("learning_rate", "max_grad_norm", "minutes"):
            _above_zero(self, name)
        for name in ("ema", "beta2"):
            _range(self, name, 0)
            if getattr(self, name) >= 1:
                raise InputError(f"{name}: {getattr(self, name)} given, less than 1 wanted")
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("precision", self.precision, PRECISIONS)
        for tracker in self.trackers:
            _choice("trackers", tracker, TRACKERS)


@dataclass(frozen=True)
class Data:
    """[data]: shards as paths, globs or URLs. workers: processes that decode, for each training process. shuffle: how
    many shards are mixed with each other; each worker holds as many in memory."""

    shards: tuple[str, ...]
    workers: int = 4
    shuffle: int = 2

    def __post_init__(self):
        if not self.shards:
            raise InputError("shards: an empty list given, at least one path, glob or URL wanted")
        _range(self, "workers", 0)
        _range(self, "shuffle", 1)


@dataclass(frozen=True)
class Model:
    """[model]: files to start from.

    faceclip: a FaceCLIP checkpoint. Without it, stage A starts from the public towers: clip_l and clip_g, CLIPs in
    open_clip's layout (clip_l_name, clip_g_name: open_clip's names of their sizes, where the files do not tell them),
    and face, a face recognition ViT with face_heads heads. unet: an SDXL UNet; vae: SDXL's VAE.
    """

    faceclip: Path | None = None
    clip_l: Path | None = None
    clip_l_name: str | None = "ViT-L-14-quickgelu"
    clip_g: Path | None = None
    clip_g_name: str | None = "ViT-bigG-14"
    face: Path | None = None
    face_heads: int = 8
    unet: Path | None = None
    vae: Path | None = None

    def __post_init__(self):
        _range(self, "face_heads", 1)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Path) and not value.exists():
                raise InputError(f"{field.name}: {value} given, but there is no such file")


@dataclass(frozen=True)
class Terms:
    """Weights of stage A's three loss terms; 0 leaves one out."""

    face: float = 1.0
    text: float = 1.0
    image: float = 1.0

    def __post_init__(self):
        for name in ("face", "text", "image"):
            _range(self, name, 0)
        if not self.face + self.text + self.image:
            raise InputError("face, text, image: all three weights are 0, at least one above 0 wanted")


@dataclass(frozen=True)
class Alignment(Terms):
    """[alignment]: the terms, and the branches to train."""

    branches: tuple[str, ...] = BRANCHES

    def __post_init__(self):
        super().__post_init__()
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise InputError(f"branches: {list(self.branches)} given, one or both of {', '.join(BRANCHES)} wanted")
        for branch in self.branches:
            _choice("branches", branch, BRANCHES)


@dataclass(frozen=True)
class Objective:
    """What stage B's loss weighs. drop: share of samples trained without conditioning, for guidance. min_snr_gamma: for
    min-SNR weighting, 5 is usual; None trains all times alike.

    noise_offset: spread of what is added to the noise of a whole channel. SDXL's largest noise leaves the mean of a
    small latent to be seen, which a model then trusts, and pure noise gives its pictures a random tint; 0.2 hides the
    mean of 16 x 16 cells.

    face_weight: how many times the error counts where a face is; the weights of a picture have the mean 1.
    """

    drop: float = 0.1
    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    face_weight: float = 1.0

    def __post_init__(self):
        _range(self, "drop", 0)
        if self.drop >= 1:
            raise InputError(f"drop: {self.drop} given, less than 1 wanted")
        _above_zero(self, "min_snr_gamma")
        _range(self, "noise_offset", 0)
        _above_zero(self, "face_weight")


@dataclass(frozen=True)
class Diffusion(Objective):
    """[diffusion]: the objective, and the side of the training pictures in px."""

    resolution: int = 1024

    def __post_init__(self):
        super().__post_init__()
        _range(self, "resolution", 64)
        if self.resolution % 8:
            raise InputError(f"resolution: {self.resolution} given, a multiple of 8 wanted (the VAE's cells)")


@dataclass(frozen=True)
class Config:
    """A run. stage: what the table named after `kind` says."""

    kind: str
    run: Settings
    data: Data
    model: Model
    stage: Alignment | Diffusion


def load(path: str | Path) -> Config:
    """Reads and checks a run's file. Raises InputError for the first thing that is wrong in it."""
    path = Path(path)
    root = read_toml(path)
    stages = {"alignment": Alignment, "diffusion": Diffusion}
    try:
        kind = root.get("kind")
        _choice("kind", kind, KINDS)
        known = {"kind", "run", "data", "model", kind}
        for name in root:
            if name in KINDS and name != kind:
                raise InputError(f"[{name}]: this table is of another kind of run, but kind is {kind!r}: remove one")
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), 1)
                hint = f"did you mean [{near[0]}]?" if near else f"known are {', '.join(sorted(known))}"
                raise InputError(f"[{name}]: the file has no table [{name}]; {hint}")
        for name in ("run", "data", "model"):
            if name not in root:
                raise InputError(f"[{name}]: the table is missing")
        parts = {
            name: table(cls, root.get(name, {}), name, path.parent)
            for name, cls in (("run", Settings), ("data", Data), ("model", Model), (kind, stages[kind]))
        }
        config = Config(kind, parts["run"], _absolute(parts["data"], path.parent), parts["model"], parts[kind])
        _check_files(config)
        return config
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def table(cls: type[Table], values: Any, name: str, base: Path) -> Table:
    """A dataclass out of a TOML table; paths in it are relative to `base`.

    Raises InputError, naming table and field, for an unknown or missing field and a value of the wrong kind or range.
    """
    if not isinstance(values, dict):
        raise InputError(f"[{name}]: {values!r} given, a table wanted")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    try:
        for key in values:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}"
                raise InputError(f"{key}: the table has no field {key!r}; {hint}")
        given = {key: _convert(key, value, hints[key], base) for key, value in values.items()}
        for key, field in fields.items():
            if field.default is dataclasses.MISSING and key not in given:
                raise InputError(f"{key}: missing, {_wanted(hints[key])} wanted")
        return cls(**given)
    except InputError as error:
        raise InputError(f"[{name}] {error}") from None


def _convert(name: str, value: Any, hint: Any, base: Path) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, list) or not all(isinstance(entry, item) for entry in value):
            raise InputError(f"{name}: {value!r} given, {_wanted(hint)} wanted")
        return tuple(value)
    accepted = {Path: str, float: (int, float)}.get(kind, kind)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{name}: {value!r} given, {_wanted(hint)} wanted")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{name}: {value!r} given, a finite number wanted")
    return base / Path(value).expanduser() if kind is Path else kind(value)


def _wanted(hint: Any) -> str:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not types.NoneType)
    return "a list of texts" if typing.get_origin(kind) is tuple else _WANTED[kind]


def _absolute(data: Data, base: Path) -> Data:
    local = [shard if "://" in shard or shard.startswith("pipe:") else str(base / shard) for shard in data.shards]
    return dataclasses.replace(data, shards=tuple(local))


def _check_files(config: Config) -> None:
    """What this kind of run needs of [model]."""
    if config.kind == "diffusion":
        needed = ["faceclip", "unet", "vae"]
    else:
        needed = [f"clip_{branch}" for branch in config.stage.branches] if config.stage.image else []
        needed += [] if config.model.faceclip else ["clip_l", "clip_g", "face"]
    for name in needed:
        if getattr(config.model, name) is None:
            needs = ", ".join(dict.fromkeys(needed))
            raise InputError(f"[model] {name}: missing, a path wanted: kind = {config.kind!r} needs {needs}")


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        seen = "missing" if value is None else f"{value!r} given"
        raise InputError(f"{name}: {seen}, one of {', '.join(choices)} wanted")


def _range(settings: Any, name: str, least: float) -> None:
    value = getattr(settings, name)
    if not value >= least:
        raise InputError(f"{name}: {value} given, at least {least} wanted")


def _above_zero(settings: Any, name: str) -> None:
    value = getattr(settings, name)
    if value is not None and not value > 0:
        raise InputError(f"{name}: {value} given, more than 0 wanted")
