"""Retrieval: is the right one of a gallery the nearest to each query?"""

import torch

from ..errors import InputError

TIE = 1e-6  # cosines closer than this are equal: float32 features are no more exact
_CHUNK = 1024


def ranks(queries: torch.Tensor, gallery: torch.Tensor, right: torch.Tensor | None = None) -> torch.Tensor:
    """The place of each query's right entry among the gallery by cosine similarity, 1 is the first; int64 [Q].

    queries: [Q, D], gallery: [G, D], of any length. right: int64 [Q], the right entry's place in the gallery; or bool
    [Q, G], where one of several is right; None: entry q for query q. A wrong entry as near as the right one counts as
    nearer, so a model that gives everything the same features is right about nothing. Raises InputError.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"Queries have shape {tuple(queries.shape)} and the gallery {tuple(gallery.shape)}; [Q, D] and [G, D] are "
            "wanted."
        )
    mask = _right_mask(right, len(queries), len(gallery)).to(queries.device)
    queries, gallery = (_normalised(one, name) for one, name in ((queries, "queries"), (gallery, "gallery")))
    found = []
    for start in range(0, len(queries), _CHUNK):
        cosines, good = queries[start : start + _CHUNK] @ gallery.T, mask[start : start + _CHUNK]
        best = cosines.masked_fill(~good, -torch.inf).amax(dim=1, keepdim=True)
        found.append(1 + ((cosines >= best - TIE) & ~good).sum(dim=1))
    return torch.cat(found)


def top_k(queries: torch.Tensor, gallery: torch.Tensor, right: torch.Tensor | None = None, k: int = 1) -> float:
    """The share of queries, 0 to 1, whose right entry is among the k nearest; as `ranks`."""
    if not 1 <= k <= len(gallery):
        raise InputError(f"k is {k}, wanted a number from 1 to the gallery's size, {len(gallery)}.")
    return float((ranks(queries, gallery, right) <= k).double().mean())


def _right_mask(right: torch.Tensor | None, queries: int, gallery: int) -> torch.Tensor:
    if not queries or not gallery:
        raise InputError(f"There are {queries} queries and {gallery} entries in the gallery; at least 1 is wanted.")
    right = torch.arange(queries) if right is None else right.cpu()
    if right.dtype != torch.bool:
        if right.shape != (queries,) or int(right.min()) < 0 or int(right.max()) >= gallery:
            raise InputError(
                f"The right entries have shape {tuple(right.shape)} and lie from {int(right.min())} to "
                f"{int(right.max())}; [{queries}] and 0 to {gallery - 1} are wanted."
            )
        return torch.nn.functional.one_hot(right.long(), gallery).bool()
    if right.shape != (queries, gallery) or not bool(right.any(dim=1).all()):
        raise InputError(f"The right entries are wanted as bool [{queries}, {gallery}] with at least one per query.")
    return right


def _normalised(features: torch.Tensor, name: str) -> torch.Tensor:
    features = features.detach().double()
    if not bool(torch.isfinite(features).all()):
        raise InputError(f"The features of the {name} hold NaN or infinite values.")
    return torch.nn.functional.normalize(features, dim=1)
