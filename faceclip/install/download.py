"""`python -m faceclip download`: published files into ComfyUI's models folder, after asking."""

import argparse
import sys

from ..errors import DownloadError
from . import places, published
from .fetch import fetch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    names = ", ".join(published.FILES)
    others = ", ".join(name for name, file in published.FILES.items() if not file.by_default)
    words = f"{names} (default: all but {others}, which are FaceT5's)"
    parser.add_argument("files", nargs="*", type=_name, metavar="FILE", help=words)
    parser.add_argument("--yes", action="store_true", help="do not ask: the licences shown are accepted")
    places.add_argument(parser)
    parser.add_argument("--force", action="store_true", help="replace a file of that name that is another one")


def _name(text: str) -> str:
    if text not in published.FILES:
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(published.FILES)}")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Fetch the files named. Returns 0 when each is there, 1 when one was declined. Raises FaceCLIPError."""
    folders = places.find_folders(arguments.models)
    usual = [name for name, file in published.FILES.items() if file.by_default]
    wanted = [published.FILES[name] for name in arguments.files or usual]
    agreed = _always if arguments.yes else _agreed
    done = [fetch(file, folders[file.folder], agreed, print, arguments.force) for file in wanted]
    return 0 if all(done) else 1


def _always() -> bool:
    return True


def _agreed() -> bool:
    if not sys.stdin or not sys.stdin.isatty():
        raise DownloadError("There is no terminal to ask in. Give --yes to accept the licence and download.")
    try:
        return input("Download it under this licence? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
