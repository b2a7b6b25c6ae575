"""Packages that would ask the network when they are imported, kept from it."""

import sys
from types import ModuleType


def keep_albumentations_offline() -> None:
    """Takes albumentations' question for its newest version away, which it puts to PyPI whenever it is imported.

    insightface before 2 imports it. Its switch is a variable of the environment; a pack that is read line by line for
    what it does to the environment better leaves that alone.
    """
    module = ModuleType("albumentations.check_version")
    vars(module)["check_for_updates"] = lambda: None
    sys.modules.setdefault(module.__name__, module)
