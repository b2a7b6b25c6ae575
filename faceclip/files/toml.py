"""Reading TOML: training runs, the recipe of the small model and benchmarks are written in it."""

from pathlib import Path

from ..errors import DependencyError, InputError


def read_toml(path: Path) -> dict:
    """A TOML file's tables. Raises InputError where it cannot be read, DependencyError without a reader for it."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib  # pyright: ignore[reportMissingImports] - not on the Python that checks
        except ImportError as error:
            raise DependencyError(
                'Reading TOML needs tomli on Python 3.10, which the extras "train" and "eval" bring: '
                "`python -m pip install tomli`."
            ) from error
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{path}: not a TOML file ({error})") from error
