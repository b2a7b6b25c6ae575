"""A ComfyUI from outside: its environment, a server, a client of its API, and API prompts.

environment: a Python and a ComfyUI to run in. process: child processes and locks. server, client: one running, and
talking to it. answers: what it says. workflow: changes to API prompts. detector: that of the demo and the tests.
demo: the command that uses all of them. server_errors: what can go wrong.

Everything here works with the standard library alone, so that it can start before anything is installed;
only the websocket of the client needs aiohttp, which ComfyUI itself requires.
"""


def __getattr__(name: str):
    """`faceclip.comfy.Client`, for programs of others; the room itself stays light."""
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .client import Client

    return Client
