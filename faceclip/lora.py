"""`python -m faceclip lora`: what tells FaceCLIP's UNet from SDXL base, as a LoRA for any SDXL checkpoint."""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from . import progress
from .convert import DTYPES
from .errors import CheckpointError, InputError
from .files.state_dict import State, read_state_dict, strip_prefix, write_safetensors
from .sampling import difference, unet_file, unet_layout
from .sampling.difference import Kept
from .sampling.unet_config import EPSILON, VELOCITY, UNetConfig, expected_shapes

_PLAN, _KEPT = "faceclip_lora_plan", "faceclip_lora_kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Writes the difference between FaceCLIP's UNet and SDXL base as a LoRA. ComfyUI's stock LoRA loader puts it on "
        "any SDXL checkpoint. Needs a minute or more for each block; a command that was stopped goes on where it was."
    )
    parser.add_argument("unet", type=Path, help="FaceCLIP's UNet: unet.pt, or a .safetensors made of it")
    parser.add_argument(
        "--base", type=Path, required=True, help="SDXL base: a single-file checkpoint, or a UNet in diffusers' layout"
    )
    parser.add_argument("--rank", type=int, required=True, help="of the LoRA; the file grows with it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16", help="how it is stored (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where singular values are computed, such as cuda")
    parser.add_argument("--force", action="store_true", help="overwrite FILE where it exists")


def run(arguments: argparse.Namespace) -> int:
    """Write the LoRA and print what each block keeps of its difference. Raises CheckpointError and InputError."""
    out = arguments.out
    if out.suffix != ".safetensors":
        raise InputError(f"--out is {out}, wanted a name that ends in .safetensors.")
    if arguments.rank < 1:
        raise InputError(f"--rank is {arguments.rank}, wanted a whole number from 1.")
    if out.exists() and not arguments.force:
        raise CheckpointError(f"{out} exists already. Choose another name, or overwrite it with --force.")
    tuned, config = unet_file.read(arguments.unet)
    base = read_base(arguments.base, config)
    plan = {"unet": _stamp(arguments.unet), "base": _stamp(arguments.base), "rank": arguments.rank}
    parts = Parts(out, json.dumps(plan))
    blocks = difference.blocks(expected_shapes(config))
    kept = {}
    with progress.bar("Singular values", "weights", len(tuned)) as bar:
        for name, keys in blocks.items():
            kept[name] = parts.kept(name)
            if kept[name] is None:
                kept[name] = _block(tuned, base, keys, arguments, parts, name, bar)
            else:
                bar.update(len(keys))
    whole = sum(kept.values(), Kept(0.0, 0.0, dict.fromkeys({*difference.RANKS, arguments.rank}, 0.0)))
    if not whole.whole:
        raise InputError(f"{arguments.unet} and {arguments.base} hold the same UNet: there is no difference to write.")
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": str(arguments.rank), _PLAN: json.dumps(plan)}
    metadata["ss_base_model_version"] = "sdxl_base_v1-0"
    write_safetensors(parts.all(blocks), out, metadata, arguments.force, DTYPES[arguments.dtype])
    parts.remove()
    sys.stdout.write(table({**kept, "all": whole}, arguments.rank))
    sys.stdout.write(f"Wrote {out}: {out.stat().st_size:,} bytes, rank {arguments.rank} in {arguments.dtype}.\n")
    return 0


def read_base(path: Path, config: UNetConfig) -> State:
    """The base's UNet in diffusers' layout, out of a single-file checkpoint or a UNet file; CheckpointError else."""
    state, _ = read_state_dict(path)
    if unet_layout.is_original(state):
        prediction = VELOCITY if unet_file.VELOCITY_KEY in state else EPSILON
        if prediction != config.prediction_type:
            raise CheckpointError(
                f"{path.name} predicts {prediction}, but the tuned UNet {config.prediction_type}: their difference is "
                "no style. Give the checkpoint that it was tuned from."
            )
        state = unet_layout.to_diffusers(state, config)
    state = strip_prefix(state, unet_file.PREFIXES)
    unet_file.check_state_dict(state, config, path.name)
    return state


def table(kept: dict[str, Kept], rank: int) -> str:
    """What each rank keeps of the difference, in percent of its squared size, block by block."""
    ranks = sorted({*difference.RANKS, rank})
    lines = [f"{'kept, % at rank':16}" + "".join(f"{one:>8}" for one in ranks)]
    for name, one in kept.items():
        lines.append(f"{name:16}" + "".join(f"{100 * one.share(at):8.1f}" for at in ranks))
    return "\n".join(lines) + "\n"


class Parts:
    """The finished blocks of a LoRA that is being made, in a hidden folder beside it, so that work can go on.

    Parts of another plan (other files, another rank) are thrown away.
    """

    def __init__(self, out: Path, plan: str):
        self._folder, self._plan = out.with_name(f".{out.stem}.lora-parts"), plan
        known = self._folder / "plan.json"
        if self._folder.exists() and (not known.is_file() or known.read_text("utf-8") != plan):
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        known.write_text(plan, "utf-8")

    def kept(self, name: str) -> Kept | None:
        """What a finished block keeps, None for one that is still to do."""
        if not self._path(name).is_file():
            return None
        raw = json.loads(read_state_dict(self._path(name))[1][_KEPT])
        return Kept(raw["whole"], raw["outside"], {int(rank): value for rank, value in raw["at"].items()})

    def put(self, name: str, state: State, kept: Kept) -> None:
        about = {_KEPT: json.dumps({"whole": kept.whole, "outside": kept.outside, "at": kept.at})}
        write_safetensors(state, self._path(name), about, force=True)

    def all(self, names) -> State:
        found: State = {}
        for name in names:
            found |= read_state_dict(self._path(name))[0]
        return found

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.replace(' ', '_')}.safetensors"


def _block(tuned: State, base: State, keys: list[str], arguments, parts: Parts, name: str, bar: tqdm) -> Kept:
    state: State = {}
    total = Kept(0.0, 0.0, dict.fromkeys({*difference.RANKS, arguments.rank}, 0.0))
    for part, kept in difference.lora(tuned, base, keys, arguments.rank, arguments.device):
        state |= part
        total += kept
        bar.update()
    parts.put(name, state, total)
    return total


def _stamp(path: Path) -> str:
    """Tells a file from what it was before it changed, without reading gigabytes."""
    about = path.stat()
    return hashlib.sha256(f"{path.resolve()} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()
