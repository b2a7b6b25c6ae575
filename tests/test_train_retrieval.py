"""Retrieval: ranks and top-k on features whose order is known."""

import pytest
import torch

from faceclip.errors import InputError
from faceclip.train.retrieval import ranks, top_k


def test_ranks_are_places():
    gallery = torch.eye(4)
    queries = torch.tensor([[9.0, 1, 0, 0], [1, 0.5, 0, 0], [0, 0, 1, 2], [0.1, 0.2, 0.3, 0.4]])
    assert ranks(queries, gallery).tolist() == [1, 2, 2, 1]
    assert top_k(queries, gallery) == 0.5 and top_k(queries, gallery, k=2) == 1.0
    assert ranks(queries, gallery, torch.tensor([0, 0, 3, 0])).tolist() == [1, 1, 1, 4]
    several = torch.tensor([[0, 1, 1, 0]] * 4).bool()
    assert ranks(queries, gallery, several).tolist() == [2, 2, 2, 2]


def test_ties_are_wrong():
    same = torch.ones(5, 3) / 3
    assert ranks(same, same).tolist() == [5] * 5 and top_k(same, same) == 0.0
    noisy = same + 1e-8 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert top_k(noisy, noisy) == 0.0


def test_many_queries_are_like_few():
    generator = torch.Generator().manual_seed(1)
    queries, gallery = torch.randn(1500, 6, generator=generator), torch.randn(1500, 6, generator=generator)
    whole = ranks(queries, gallery)
    assert torch.equal(whole[1100:1103], ranks(queries[1100:1103], gallery, torch.arange(1100, 1103)))


@pytest.mark.parametrize(
    ("queries", "gallery", "right", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), None, "shape"),
        (torch.zeros(3, 3), torch.zeros(2, 3), None, "0 to 1"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, 3), None, "NaN"),
        (torch.zeros(0, 3), torch.zeros(2, 3), None, "0 queries"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 2).bool(), "at least one"),
    ],
)
def test_wrong_features_are_refused(queries, gallery, right, words):
    with pytest.raises(InputError, match=words):
        ranks(queries, gallery, right)
