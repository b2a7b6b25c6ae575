"""Measures of all pictures together: FID and KID against a folder of real ones, computed by torchmetrics."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bulk.store import SUFFIXES, read_picture
from ..errors import DependencyError, InputError
from ..files.state_dict import read_state_dict
from ..install import extras
from .metrics import Clip

NAMES = ("fid", "kid")
WEIGHTS_NAME = "weights-inception-2015-12-05-6726825d.pth"
_WEIGHTS_SOURCE = "a release file of github.com/toshas/torch-fidelity"
_KID_SUBSET, _KID_SUBSETS = 1000, 100
_SEED = 0  # KID draws subsets; the same figures come out twice
_ENOUGH = 10_000  # pictures from which FID's bias is small beside its differences


class ClipFeatures(torch.nn.Module):
    """The image tower of a CLIP as feature extractor: uint8 [B, 3, H, W] -> [B, W]."""

    def __init__(self, clip: Clip):
        super().__init__()
        self.name, self._clip = f"the image tower of {clip.name}", clip

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._clip.image_features(picture.permute(1, 2, 0).numpy()) for picture in pictures])


def load_inception(path: Path, device: str = "cpu") -> torch.nn.Module:
    """The Inception network that published FIDs use, uint8 [B, 3, H, W] -> [B, 2048]; weights from a file.

    Raises InputError where the file is missing or of another network, CheckpointError where it is no state dict,
    DependencyError where a package is missing.
    """
    if not Path(path).is_file():
        raise InputError(
            f"FID and KID need Inception's weights, and there is no file {path}. Get {WEIGHTS_NAME}, "
            f"{_WEIGHTS_SOURCE}, and name it with --inception; or measure with CLIP's features: --features clip."
        )
    try:
        import torch_fidelity  # noqa: F401  torchmetrics builds the network with it, or fails late without
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise _missing(error) from error
    # torch-fidelity unpickles whatever the file holds; what this reader accepts holds tensors and no code.
    read_state_dict(path)
    try:
        network: Any = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path)).to(device)
    except Exception as error:  # not a checkpoint, or of another network: torch has many errors for that
        raise InputError(f"{path} does not hold Inception's weights ({error}). Wanted: {WEIGHTS_NAME}.") from error
    network.name, network.num_features = "Inception v3 (as published FIDs)", 2048
    return network


def distances(
    real: Iterable[np.ndarray], made: Iterable[np.ndarray], extractor: torch.nn.Module, names=NAMES
) -> dict[str, float]:
    """FID and KID (mean and `kid_std` over subsets) of made pictures to real ones.

    Pictures are uint8 [H, W, 3]; extractor: any module, uint8 [1, 3, H, W] -> [1, F]. Raises InputError for fewer than
    two pictures on a side, DependencyError without torchmetrics.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as error:
        raise _missing(error) from error
    sides = {True: _features(real, extractor), False: _features(made, extractor)}
    counts = {side: len(features) for side, features in sides.items()}
    if min(counts.values()) < 2:
        raise InputError(
            f"There are {counts[True]} real and {counts[False]} made pictures; FID and KID need at least two of each."
        )
    found = {}
    if "fid" in names:
        fid = FrechetInceptionDistance(_Passed(sides[True].shape[1]))
        for side, features in sides.items():
            fid.update(features, real=side)
        found["fid"] = float(fid.compute())
    if "kid" in names:
        subset = min(_KID_SUBSET, *counts.values())
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # it says that it keeps all features, which is so
            torch.manual_seed(_SEED)
            kid = KernelInceptionDistance(_Passed(sides[True].shape[1]), _KID_SUBSETS, subset)
            for side, features in sides.items():
                kid.update(features, real=side)
            mean, spread = kid.compute()
        found.update(kid=float(mean), kid_std=float(spread))
    return found


def about(real: int, made: int, extractor: torch.nn.Module, names=NAMES) -> str:
    """What the reader must know to compare the figures. real, made: numbers of pictures."""
    text = f"{' and '.join(names)}: {made} pictures against {real} real ones, features of "
    text += getattr(extractor, "name", type(extractor).__name__) + "."
    if "fid" in names and min(real, made) < _ENOUGH:
        text += " So few pictures raise FID: compare it only at equal numbers of pictures."
    return text


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder and those below it, in order of name; raises InputError where there are none."""
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"The folder of real pictures, {folder}, holds none ({', '.join(SUFFIXES)}).")
    return found


def read_all(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    for path in paths:
        yield read_picture(path)


class _Passed(torch.nn.Module):
    """Takes features that were computed before."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


@torch.no_grad()
def _features(pictures: Iterable[np.ndarray], extractor: torch.nn.Module) -> torch.Tensor:
    """[N, F] on the CPU; pictures may have different sizes, so they go one by one."""
    device = next((one.device for one in extractor.parameters()), torch.device("cpu"))
    found = [
        extractor(torch.from_numpy(picture).permute(2, 0, 1)[None].to(device)).float().cpu()  # HWC -> BCHW
        for picture in pictures
    ]
    return torch.cat(found) if found else torch.empty(0, 1)


def _missing(error: ImportError) -> DependencyError:
    return DependencyError(
        f'FID and KID need torchmetrics and torch-fidelity ({error}), which the extra "eval" brings: '
        f"{extras.install_line('eval')}"
    )
