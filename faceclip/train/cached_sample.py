"""The samples of a cache (faceclip.train.cache): tensors, and in their header which models they are of."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load

from ..errors import InputError, shown
from . import shard_stream

SUFFIX, MADE_OF = "safetensors", "made_of"


class CachedSample:
    """Decoder of such a sample."""

    def group(self, sample: Mapping[str, Any]) -> tuple[int, ...]:
        """The shape of its latent, the same throughout a batch; alike for all without one."""
        return tuple(self._tensors(sample).get("latent_mean", torch.empty(0)).shape)

    def __call__(self, sample: Mapping[str, Any], random: np.random.Generator) -> dict[str, torch.Tensor]:
        return self._tensors(sample)

    def _tensors(self, sample: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        if SUFFIX not in sample:
            raise InputError(f"it has no {SUFFIX}, only {', '.join(sorted(sample))}: no sample of `faceclip cache`")
        return load(sample[SUFFIX])


def check(url: str, models: Mapping[str, str]) -> None:
    """InputError where a shard's first sample was made by other models than these, by hash."""
    sample = next(shard_stream.read(url, lambda *told: None), None)
    if sample is None or SUFFIX not in sample:
        raise InputError(f"[data] cached: true given, but {shown(url)} is no shard that `faceclip cache` wrote")
    data = sample[SUFFIX]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    before = json.loads(header.get("__metadata__", {}).get(MADE_OF, "{}"))
    changed = sorted(name for name, content in models.items() if name in before and before[name] != content)
    if changed:
        raise InputError(f"{shown(url)} was cached with another {changed[0]}: cache the shards again, or name that one")
