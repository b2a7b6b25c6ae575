"""From the samples of all blocks to shards: who is who, each person's other photos, and an order that mixes everything.

A person's photos often lie beside each other. In their order, most samples of a batch would be of few people.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from .crops import Sample
from .shard_writer import Finished, Folder, Found

log = logging.getLogger(__name__)

_NEAREST = 20  # faces that a face may be linked with: long chains of look-alikes would make one person of many
_CHUNK = 4096
_SEED = 0
Place = tuple[int, int]  # which sample, which of its faces


def write_shards(folder: Folder, blocks: Mapping[int, Finished], size: int, others: int, alike: float | None) -> None:
    """Write the shards out of finished blocks, `size` samples each.

    others: at most so many faces of each person's other photos go into a sample. alike: the cosine from which two faces
    are taken for one person, by their features; None where people are known, or not wanted.
    """
    samples = [(number, one) for number, done in sorted(blocks.items()) for one in done.samples]
    people = _cluster([one for _, one in samples], alike) if alike is not None else [one.people for _, one in samples]
    of_person: dict[str, list[Place]] = defaultdict(list)
    for row, names in enumerate(people):
        for face, name in enumerate(names):
            if name is not None:
                of_person[name].append((row, face))
    order = np.random.default_rng(_SEED).permutation(len(samples))
    counts: dict[int, int] = {}

    def mixed(rows: np.ndarray) -> Iterator[tuple[str, Sample]]:
        for row in rows.tolist():
            number, one = samples[row]
            key, sample = folder.read(number, one.place)
            about = json.loads(sample.pop("json"))
            for face, name in enumerate(people[row]):
                about["faces"][face]["person"] = name
                for count, place in enumerate(_others(of_person.get(name or "", []), row, face, others)):
                    sample[f"face{face}.other{count}.png"] = _face(folder, samples, place)
            sample["json"] = json.dumps(about, ensure_ascii=False).encode()
            yield key, sample

    log.info("Mixing %d samples into %d shards.", len(samples), -(-len(samples) // size))
    for shard, first in enumerate(range(0, len(samples), size)):
        rows = order[first : first + size]
        folder.write_shard(shard, mixed(rows))
        counts[shard] = len(rows)
    folder.finish(counts, blocks)


def _others(places: Sequence[Place], row: int, face: int, most: int) -> list[Place]:
    """Some of the person's faces on other photos."""
    known = [place for place in places if place[0] != row]
    chosen = np.random.default_rng([_SEED, row, face]).permutation(len(known))[:most]
    return [known[index] for index in chosen]


def _face(folder: Folder, samples: Sequence[tuple[int, Found]], place: Place) -> bytes:
    number, one = samples[place[0]]
    return folder.read(number, one.place)[1][f"face{place[1]}.png"]


def _cluster(samples: Sequence[Found], alike: float) -> list[tuple[str | None, ...]]:
    """People by what a recogniser sees: faces are linked where each is among the other's nearest, and near enough."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    features = torch.from_numpy(np.stack([one for sample in samples for one in sample.vectors()])).float()
    features = torch.nn.functional.normalize(features, dim=1)
    nearest = min(_NEAREST + 1, len(features))  # each is its own nearest
    first, second = [], []
    for start in range(0, len(features), _CHUNK):
        cosine, index = (features[start : start + _CHUNK] @ features.T).topk(nearest, dim=1)
        row, column = (cosine >= alike).nonzero(as_tuple=True)
        first.append(row + start)
        second.append(index[row, column])
    rows, columns = torch.cat(first).numpy(), torch.cat(second).numpy()
    links = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(features),) * 2).tocsr()
    _, label = connected_components(links.multiply(links.T), directed=False)
    names = iter(f"cluster-{number:07d}" for number in label)
    return [tuple(next(names) for _ in sample.people) for sample in samples]
