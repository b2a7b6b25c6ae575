"""Which tests of a whole run go to one process one after another, for what they share is dear: pages, servers, models.

A file stays together, for its fixtures; but what is looked at in each of the front end's views goes by view, so that
each page is loaded once, and files that share a server of their own go together. The longest begin first.
"""

import re

import pytest

VIEW = re.compile(r"\[(?:[^\[]*-)?((?:own front end|1\.58\.1)(?:, Nodes 2\.0)?)(?:-[^\[]*)?\]$")
TOGETHER = {
    "test_first_minutes.py": "an empty ComfyUI",
    "test_get_files.py": "an empty ComfyUI",
}


def unit_of(nodeid: str) -> str:
    """The name of the unit that a test belongs to."""
    if view := VIEW.search(nodeid):
        return view[1]
    file = nodeid.split("::", 1)[0]
    return TOGETHER.get(file.rsplit("/", 1)[-1], file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives out units in place of files."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    return Units(config, log)
