"""What tells two UNets of one shape apart, as a LoRA: low rank where a weight is a matrix, whole where it is not.

Names are kohya's (`lora_unet_` and diffusers' module name), which ComfyUI's and other programs' stock loaders read. A
convolution counts as the matrix [outputs, inputs x height x width]; norms and biases go along as they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ..files.state_dict import State

RANKS = (4, 8, 16, 32, 64, 128, 256)  # those that the report tells of, beside the one that is written


@dataclass(frozen=True)
class Kept:
    """Squared size of one block's difference: the whole, and what the largest singular values keep of it.

    whole: everything. outside: norms and biases, which are kept at any rank. at: rank -> what it keeps of the
    matrices.
    """

    whole: float
    outside: float
    at: dict[int, float]

    def share(self, rank: int) -> float:
        """0 to 1: what a LoRA of this rank keeps of the block; 1 where there is no difference."""
        return (self.at[rank] + self.outside) / self.whole if self.whole else 1.0

    def __add__(self, other: "Kept") -> "Kept":
        at = {rank: value + other.at[rank] for rank, value in self.at.items()}
        return Kept(self.whole + other.whole, self.outside + other.outside, at)


def blocks(keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys by the block they belong to: `down_blocks.0`, ..., `mid_block`, `up_blocks.0`, ..., `in and out`."""
    found: dict[str, list[str]] = {}
    for key in keys:
        first, second = key.split(".")[:2]
        name = f"{first}.{second}" if first.endswith("_blocks") else first if first == "mid_block" else "in and out"
        found.setdefault(name, []).append(key)
    return found


def lora(tuned: State, base: State, keys: list[str], rank: int, device: str = "cpu") -> Iterator[tuple[State, Kept]]:
    """The LoRA's part for each key, in turn, and what it keeps; parts are float32 on the CPU.

    tuned, base: weights of the same shapes under diffusers' names. rank: at most; a smaller matrix has its own full
    rank, at which the difference is reproduced. A weight without a difference gives no part. device: where the singular
    values are computed.
    """
    for key in keys:
        # On the CPU first: the weights may lie in a file that is read as they are touched.
        change = tuned[key].to(device, torch.float32) - base[key].to(device, torch.float32)
        yield _part(key, change, rank)


def _part(key: str, change: torch.Tensor, rank: int) -> tuple[State, Kept]:
    whole = float(change.double().square().sum())
    module, _, kind = key.rpartition(".")
    name = "lora_unet_" + module.replace(".", "_")
    if kind != "weight" or change.ndim < 2:
        part = {f"{name}.{'diff' if kind == 'weight' else 'diff_b'}": change.cpu()}
        return part if whole else {}, Kept(whole, whole, dict.fromkeys({*RANKS, rank}, 0.0))
    if not whole:
        return {}, Kept(0.0, 0.0, dict.fromkeys({*RANKS, rank}, 0.0))
    left, values, right = torch.linalg.svd(change.flatten(1), full_matrices=False)
    energy = values.double().square()
    at = {size: float(energy[:size].sum()) for size in {*RANKS, rank}}
    size = min(rank, len(values))
    root = values[:size].sqrt()
    up = (left[:, :size] * root).reshape(-1, size, *[1] * (change.ndim - 2))
    down = (root[:, None] * right[:size]).reshape(size, *change.shape[1:])
    part = {f"{name}.lora_up.weight": up.cpu(), f"{name}.lora_down.weight": down.cpu()}
    return part | {f"{name}.alpha": torch.tensor(float(size))}, Kept(whole, 0.0, at)
