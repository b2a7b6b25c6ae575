"""Likeness against a swept value."""

import pytest

from faceclip.errors import InputError
from faceclip.identity import chart


def test_numbers_are_put_in_order_with_their_scores():
    assert chart.group_scores([1.0, 0.5, 1], [0.3, 0.1, 0.4]) == [(0.5, [0.1]), (1.0, [0.3, 0.4])]
    assert chart.group_scores(["b", "a"], [0.1, 0.2, 0.3, 0.4]) == [("b", [0.1, 0.2]), ("a", [0.3, 0.4])]


@pytest.mark.parametrize(("values", "scores"), [([1, 2], [0.1]), ([], [0.1]), ([1], []), ([1, 2], [0.1, 0.2, 0.3])])
def test_counts_that_do_not_fit_are_refused(values, scores):
    with pytest.raises(InputError, match=f"{len(scores)} scores came in for {len(values)} swept values"):
        chart.group_scores(values, scores)


def test_the_table_marks_the_best():
    table = chart.chart_table([(0.5, [0.1]), (1.0, [0.3, 0.5])], "strength").splitlines()
    assert table[0].startswith("Likeness by strength")
    assert table[1:] == ["0.5: 0.100", "1: 0.400 (0.300 to 0.500 of 2) <- best"]


@pytest.mark.parametrize(
    "groups",
    [[(0.0, [0.1]), (0.1, [0.9]), (2.0, [0.2, 0.4])], [("only", [-1.0])], [(i, [i / 40]) for i in range(40)]],
    ids=["numbers", "one", "many"],
)
def test_a_chart_shows_its_dots(groups):
    picture = chart.draw_chart(groups, "strength")
    assert picture.shape == (1, 512, 768, 3) and 0 <= picture.min() and picture.max() <= 1
    blue = (picture[0, ..., 2] - picture[0, ..., 0]) > 0.4
    assert blue.sum() >= 90 * len(groups) ** 0.5


def test_values_stand_to_scale():
    left, middle, right = chart._places([0.0, 0.5, 2.0])
    assert (middle - left) / (right - left) == pytest.approx(0.25)
    first, second, third = chart._places(["a", "b", "c"])
    assert second - first == pytest.approx(third - second)
