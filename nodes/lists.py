"""Lists that come in where a node decides over all of what it is given: a list of batches is one batch.

Pictures of different sizes can only travel as a list. The host would call a node once for each; these nodes take the
whole list (`is_input_list`), and pair its entries as the host does.
"""

from collections.abc import Sequence
from typing import Any

from ..faceclip.errors import InputError


def paired(**lists: Sequence[Any]) -> list[dict[str, Any]]:
    """The entries that the host would call a node for, one after the other: a shorter list repeats its last value."""
    count = max(len(values) for values in lists.values())
    return [{name: values[min(i, len(values) - 1)] for name, values in lists.items()} for i in range(count)]


def one_for_all(**lists: Sequence[Any]) -> list[Any]:
    """The value of each list that holds for all entries. Raises InputError where a list holds different ones."""
    for name, values in lists.items():
        if any(value is not values[0] and value != values[0] for value in values[1:]):
            shown = ", ".join(str(value) for value in values[:8])
            raise InputError(
                f"{name} comes as a list of different values ({shown:.200}); wanted one for all pictures, since they "
                "are judged together. Use the node once for each value."
            )
    return [values[0] for values in lists.values()]
