"""Errors meant for users: each says what was seen, what was wanted and what to do."""


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
for _error in (
    FaceCLIPError,
    CheckpointError,
    InputError,
    NoFaceError,
    ModelNotFoundError,
    DependencyError,
    DownloadError,
):
    _error.__module__ = "faceclip"
