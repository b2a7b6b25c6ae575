"""`python -m faceclip cache RUN.toml OUT`: what the frozen models make of each sample, as shards to train on.

Each shard becomes one of the same name. A sample is KEY.safetensors, the tensors of a batch without their first
dimension; its header tells of which models they are. A cut, a face and a mirroring are drawn once for each copy.
"""

import argparse
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from .. import progress
from ..errors import FaceCLIPError, InputError, shown
from ..files import whole
from . import launch, run_file, shard_stream
from .cached_sample import MADE_OF, SUFFIX

log = logging.getLogger(__name__)

_AT_A_TIME = 32  # samples that are decoded side by side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the run's TOML file; see docs/training.md")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the shards")
    helps = {"copies": (1, "of each sample, each with a cut of its own"), "batch": (8, "samples at a time")}
    for name, (default, text) in helps.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Write the shards that are not there yet. Returns 0; raises FaceCLIPError."""
    settings = run_file.load(arguments.file)
    if settings.data.cached:
        raise InputError("[data] cached: true given; to make a cache, name the shards it is made of and leave this out")
    accelerator, module, data = launch.prepared(settings)
    about = {MADE_OF: json.dumps(launch.models_of(settings))}
    module.to(accelerator.device).eval()
    arguments.out.mkdir(parents=True, exist_ok=True)
    own = data.urls[accelerator.process_index :: accelerator.num_processes]
    with ThreadPoolExecutor(max(settings.data.workers, 1)) as pool, progress.bar("Caching", "shards", len(own)) as bar:
        for url in own:
            target = arguments.out / PurePosixPath(Path(url).as_posix()).name
            if not target.exists():
                rows = _samples(data.decode, url, arguments.copies, settings.run.seed, pool)
                _write(target, _batches(module, rows, arguments.batch, accelerator.device), about)
            bar.update()
    return 0


def _samples(decode, url: str, copies: int, seed: int, pool) -> Iterator[tuple[str, Any, dict]]:
    """Key, group and decoded sample, of what is whole in a shard."""
    group = getattr(decode, "group", lambda sample: None)

    def made(one: tuple[int, dict]) -> tuple[str, Any, dict] | None:
        copy, sample = one
        key = f"{sample['__key__']}-{copy}"
        try:
            random = np.random.default_rng([seed, copy, *key.encode("utf-8", "surrogateescape")])
            return key, group(sample), decode(sample, random)
        except Exception as error:  # whatever a broken file makes a decoder raise
            log.warning("Sample %s of %s is left out: %s", shown(key), shown(url), shown(error, 500))
            return None

    rows = ((copy, one) for one in shard_stream.read(url, _tell) for copy in range(copies))
    while some := [one for one, _ in zip(rows, range(_AT_A_TIME), strict=False)]:
        yield from (found for found in pool.map(made, some) if found is not None)


def _batches(module, samples, size: int, device) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Key and features of each sample, in batches of one group."""
    waiting: dict[Any, list[tuple[str, dict]]] = {}
    for key, kind, sample in samples:
        own = waiting.setdefault(kind, [])
        own.append((key, sample))
        if len(own) == size:
            yield from _features(module, own, device)
            own.clear()
    for own in waiting.values():
        if own:
            yield from _features(module, own, device)


@torch.no_grad()
def _features(module, samples: list[tuple[str, dict]], device) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    batch = torch.utils.data.default_collate([sample for _, sample in samples])
    batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    found = module.features(batch)
    for row, (key, _) in enumerate(samples):
        yield key, {name: value[row].cpu().contiguous() for name, value in found.items()}


def _write(target: Path, rows: Iterator[tuple[str, dict[str, torch.Tensor]]], about: dict[str, str]) -> None:
    try:
        with whole.writing(target) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, tensors in rows:
                data = save(tensors, about)
                member = tarfile.TarInfo(f"{key}.{SUFFIX}")
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))
    except OSError as error:
        raise FaceCLIPError(f"{target} cannot be written: {error.strerror or error}. Check the disk.") from error


def _tell(kind: str, what: str, error: Exception) -> None:
    log.warning("%s is left out: %s", shown(what, 500), shown(error, 500))
