"""Errors meant for users: each says what was seen, what was wanted and what to do."""

import unicodedata

_LONGEST = 200  # characters of something from outside that a message repeats
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their wide forms
_JOINERS = "\u200c\u200d"  # invisible, but part of how some scripts and emoji are written


def shown(text: object, longest: int = _LONGEST) -> str:
    """Text from outside (a file's name, a header, a server's answer) as it may stand in a message, a log or a table.

    One line, not too long; what would end a line, move the cursor or turn the direction of writing is spelt out.
    """
    text = str(text)
    cut = text if len(text) <= longest else text[: longest - 3] + "..."
    return "".join(sign if _is_harmless(sign) else sign.encode("unicode_escape").decode() for sign in cut)


def for_sheet(text: str) -> str:
    """Text from outside as a cell of a CSV file. A spreadsheet takes one that begins with these signs for a formula."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text[:1] in ("\t", "\r") else text


def _is_harmless(sign: str) -> bool:
    return sign.isprintable() or sign == " " or sign in _JOINERS or unicodedata.category(sign) in ("Zs", "Cn", "Co")


class FaceCLIPError(Exception):
    """Base of every error this library raises on purpose."""


class CheckpointError(FaceCLIPError):
    """A model file cannot be used: not a checkpoint, another model, damaged or unsafe."""


class NameTakenError(CheckpointError):
    """A file of that name is there already and was not to be replaced."""


class InputError(FaceCLIPError, ValueError):
    """A picture, prompt, number or combination of inputs is not usable."""


class NoFaceError(FaceCLIPError):
    """A picture shows no face that can be used."""


class ModelNotFoundError(FaceCLIPError, FileNotFoundError):
    """A model file is in none of the folders searched."""


class DependencyError(FaceCLIPError, ImportError):
    """An optional package is missing or broken."""


class DownloadError(FaceCLIPError):
    """A published file was not downloaded: not reachable, not the file wanted, no room or no agreement."""


# A host shows an error's type with its module, which for a node pack is the path of its folder. The package gives them
# all by name.
for _error in [value for value in globals().values() if isinstance(value, type) and issubclass(value, FaceCLIPError)]:
    _error.__module__ = "faceclip"
