"""Runs inside a host: the pack's shelf as a newer host, which knows of search words and folded inputs, sees it."""

import importlib


def with_newer_fields(host) -> tuple[dict, dict]:
    """Search words of each call of `shelf`, made with a Schema and an Input that have the newer host's fields."""
    import dataclasses

    shelf = host.pack("nodes.shelf")
    real_schema, real_input = shelf.io.Schema, shelf.io.Combo.Input

    @dataclasses.dataclass
    class NewerSchema(real_schema):
        search_aliases: list | None = None

    class NewerInput(real_input):
        def __init__(self, *given, advanced=None, **named):
            super().__init__(*given, **named)

    shelf.io.Schema, shelf.io.Combo.Input = NewerSchema, NewerInput
    try:
        importlib.reload(shelf)
        folded = shelf.SELDOM
        found = {}
        for node in host.pack("nodes").NODES:
            module = importlib.import_module(node.__module__)
            if hasattr(module, "shelf"):
                module.shelf, module.io.Schema = shelf.shelf, NewerSchema
                found[node.__name__] = node.define_schema().search_aliases or []
    finally:
        shelf.io.Schema, shelf.io.Combo.Input = real_schema, real_input
    return found, folded
