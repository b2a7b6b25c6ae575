"""Training data that fits in memory, or in memory-mapped files."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from ..errors import InputError

Batch = dict[str, torch.Tensor | list]


def as_tensor(picture) -> torch.Tensor:
    """A Pillow picture as bytes, uint8 [C, H, W]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()  # HWC -> CHW


def floats(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in [0, 1] as float32; bytes, as they travel in, are counted in 255ths."""
    return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float()


class ArrayData:
    """Endless, shuffled batches out of arrays of equal length.

    arrays: name -> tensor, array (memory-mapped ones too) or list, one entry per sample. transform(batch) -> batch runs
    in the training process, so that its random numbers are resumed with everything else.
    An epoch is a permutation that follows from (seed, epoch); what does not fill a last batch is left out of the epoch,
    so that no batch holds a sample twice.
    """

    def __init__(
        self,
        arrays: Mapping[str, torch.Tensor | np.ndarray | Sequence],
        transform: Callable[[Batch], Batch] | None = None,
    ):
        lengths = {name: len(values) for name, values in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"training arrays must be of one length: {lengths or 'none'} given")
        self.arrays, self.transform = arrays, transform
        self.length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self.length

    def batches(self, rank: int, world: int, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one rank from micro step `start` on; all ranks' batches put together, in the order of the
        ranks, are what one rank with a batch of `world * batch_size` gets. Raises InputError for too few samples."""
        together = world * batch_size
        per_epoch = self.length // together
        if not per_epoch:
            raise InputError(
                f"{self.length} samples do not fill one batch of {together} ({batch_size} on each of {world} "
                "processes): give a smaller batch_size or more data"
            )
        epoch, within = divmod(start, per_epoch)
        while True:
            order = np.random.default_rng([seed, epoch]).permutation(self.length)
            for step in range(within, per_epoch):
                first = step * together + rank * batch_size
                batch = self._take(order[first : first + batch_size])
                yield self.transform(batch) if self.transform else batch
            epoch, within = epoch + 1, 0

    def _take(self, rows: np.ndarray) -> Batch:
        batch: Batch = {}
        for name, values in self.arrays.items():
            if isinstance(values, torch.Tensor):
                batch[name] = values[torch.from_numpy(rows)]
            elif isinstance(values, np.ndarray):
                batch[name] = torch.from_numpy(np.ascontiguousarray(values[rows]))
            else:
                batch[name] = [values[row] for row in rows]
        return batch
