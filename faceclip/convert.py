"""`python -m faceclip convert`: a published `.pt` file, or any file of ours, into one safe `.safetensors` file."""

import argparse
import os
import sys
from pathlib import Path

import torch

from .errors import CheckpointError, InputError
from .files.state_dict import State, name_other_model, read_state_dict, write_safetensors
from .install import published
from .model import checkpoint
from .model.encoder import JointConditioning, JointEncoder
from .model.families import Family, family_of
from .progress import shown
from .sampling import diffusion_file

NARROW = "fp8_e4m3fn"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, NARROW: torch.float8_e4m3fn}

_SOURCES = ", ".join(file.name for file in (published.ENCODER, published.UNET, published.T5_ENCODER, published.DIT))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("source", type=Path, help=f"{_SOURCES}, or a .safetensors file of one")
    parser.add_argument("target", type=_target, help="the .safetensors file to write")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="how weights are stored (default: as in the file; FaceT5: bf16)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the target where it exists")


def _target(text: str) -> Path:
    if not text.lower().endswith(".safetensors"):
        raise argparse.ArgumentTypeError(f"{text} does not end in .safetensors")
    return Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Convert one file and report what it was and became. Raises CheckpointError; then nothing is left behind."""
    source, target = arguments.source, arguments.target
    _check_places(source, target, arguments.force)
    family = _encoder_family(source)
    dtype = DTYPES.get(arguments.dtype)
    if family:
        dtype = dtype or family.dtype
        checkpoint.check_dtype(family, dtype)  # before the long work
    elif dtype == DTYPES[NARROW]:
        raise InputError(
            f"A diffusion model is not written as {NARROW}: ComfyUI makes it so from any file. Choose {NARROW} as "
            "weight_dtype in the node that loads it."
        )
    _report_source(source, _sha256(source))
    if family:
        _convert_encoder(source, target, family, dtype, arguments.force)
    else:
        _convert_diffusion_model(source, target, dtype, arguments.force)
    print(f"Wrote {target}: {_size(target)}, SHA-256 {_sha256(target)}")
    return 0


def _check_places(source: Path, target: Path, force: bool) -> None:
    """What can be known to fail is said before the long work."""
    if os.path.isdir(target):
        raise CheckpointError(f"{target} is a folder, wanted the name of a file to write.")
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
        raise CheckpointError(f"{target} is the file to convert itself. Choose another name for the result.")
    if os.path.exists(target) and not force:
        raise CheckpointError(f"{target} exists already. Choose another name, or overwrite it with --force.")


def _encoder_family(source: Path) -> Family | None:
    """The family of an encoder, None for a diffusion model in diffusers' layout, whole or not; else it is refused."""
    state, _ = read_state_dict(source)
    family = family_of(state)
    if family is None and not diffusion_file.owns(state):
        raise CheckpointError(
            f"{source.name} is neither a FaceCLIP encoder nor a diffusers UNet, and nothing of FaceT5's. "
            f"{name_other_model(state)} Wanted: {_SOURCES}."
        )
    return family


def _report_source(source: Path, digest: str) -> None:
    print(f"{source.name}: {_size(source)}, SHA-256 {digest}")
    known = published.identify(digest)
    if known:
        print(f"This is the published {known.name} of {known.repo}. Licence of the weights: {known.licence}.")
        return
    namesake = next((file for file in published.FILES.values() if file.name == source.name), None)
    if namesake is None:
        print("It is none of the published files.")
    elif namesake.sha256 is None:
        print(f"The hash of the published {namesake.name} is not known here, so this says nothing of where it is from.")
    else:
        print(
            f"WARNING: this is NOT the published {namesake.name}: that has the SHA-256 {namesake.sha256}.\n"
            f"WARNING: it is another version, or was changed or damaged on its way. The published one: {namesake.url}",
            file=sys.stderr,
        )


def _convert_encoder(source: Path, target: Path, family: Family, dtype: torch.dtype | None, force: bool) -> None:
    with shown("Checking", "weights") as tell:
        state, config = checkpoint.read_faceclip(source, tell)
    print(f"{family.name}, {_describe(state, dtype)}; {family.describe(family.variant(state))}.")
    with shown("Writing", "weights") as tell:
        checkpoint.save(state, target, config, dtype, force, tell)
    if dtype == DTYPES[NARROW]:
        print("Measuring what 8 bits cost. With the published sizes this takes some minutes.")
        exact = _encode(checkpoint.build(state, config, source.name))
        narrow = _encode(checkpoint.load(target))
        cost = float((narrow.embeddings - exact.embeddings).norm() / exact.embeddings.norm())
        print(f"The embeddings of one prompt and one made-up face deviate by {cost:.1%} from those of {source.name}.")


def _encode(model: JointEncoder) -> JointConditioning:
    """One prompt with a face of smooth noise: nobody's, but no blank picture either."""
    noise = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    face = torch.nn.functional.interpolate(noise, size=(112, 112), mode="bilinear", align_corners=False)
    return model.encode_prompt(["A portrait photo of a woman in a red coat, in the rain"], model.encode_identity(face))


def _convert_diffusion_model(source: Path, target: Path, dtype: torch.dtype | None, force: bool) -> None:
    with shown("Checking", "weights") as tell:
        state, config = diffusion_file.read(source, tell)
    print(f"{diffusion_file.name_of(config)}, {_describe(state, dtype)}.")
    with shown("Writing", "weights") as tell:
        write_safetensors(state, target, diffusion_file.header(config), force, dtype, tell)


def _describe(state: State, dtype: torch.dtype | None) -> str:
    names = {value: name for name, value in DTYPES.items()}
    found = {value.dtype for value in state.values() if value.is_floating_point()}
    kinds = " and ".join(sorted(names.get(kind, str(kind).removeprefix("torch.")) for kind in found))
    stored = f", written as {names[dtype]}" if dtype else ""
    return f"{sum(value.numel() for value in state.values()):,} parameters in {kinds}{stored}"


def _sha256(path: Path) -> str:
    with shown(f"Hashing {path.name}", "B") as tell:
        try:
            return published.sha256(path, tell)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Check the disk.") from error


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"
