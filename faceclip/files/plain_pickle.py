"""A pickle read into plain values: no class that it names is looked up, and nothing in it is called."""

import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

_LARGEST_TUPLE = 1000  # values in it and in the tuples within; Python's random state has 627


class Value:
    """What a pickle makes of a class: nothing but its name, what it is called with, and its state."""

    name: ClassVar[str] = ""
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> "Value":
        self = object.__new__(cls)
        self.arguments = arguments
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Of a kind of table: its contents are nothing that is asked for."""


class PlainUnpickler(pickle._Unpickler):
    """Builds numbers, texts, lists, tables and Value; a class that it meets is not looked up.

    It is the one written in Python: the one in C keeps a table as long as the largest number that a pickle names.
    """

    stack: list[Any]  # these are the base class's, which names no types
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin-1")  # pickles of Python 2 hold texts of any bytes
        self._classes: dict[str, type[Value]] = {}
        self._tuples: dict[int, tuple[int, tuple]] = {}  # id -> values in it, and the tuple, so that the id stays its

    def find_class(self, module: str, name: str) -> type[Value]:
        known = f"{module}.{name}"
        if known not in self._classes:
            self._classes[known] = type("Value", (Value,), {"name": known})
        return self._classes[known]

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("it names a class by number")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it names something outside")

    def no_bytes(self) -> None:
        raise pickle.UnpicklingError("it holds bytes to be changed")  # room for as many as it says is made at once

    def tuple_of(self, count: int | None) -> None:
        """Put one together, of the last `count` values or of those since the last mark.

        Tuples in tuples, each twice, are few bytes in a pickle and take for ever where they are a table's key.
        """
        if count is None:
            items = tuple(self.pop_mark())
        else:
            items = tuple(self.stack[-count:])
            del self.stack[-count:]
        size = sum(self._tuples[id(item)][0] if id(item) in self._tuples else 1 for item in items)
        if size > _LARGEST_TUPLE:
            raise pickle.UnpicklingError(f"it holds a tuple of more than {_LARGEST_TUPLE} values")
        self._tuples[id(items)] = (size, items)
        self.append(items)

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: no_bytes,
        pickle.TUPLE[0]: lambda self: self.tuple_of(None),
        **{
            code[0]: lambda self, count=count: self.tuple_of(count)
            for count, code in enumerate((pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3), 1)
        },
    }
