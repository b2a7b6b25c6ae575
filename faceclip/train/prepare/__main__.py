"""`python -m faceclip.train.prepare`: the same as `python -m faceclip prepare`."""

import argparse
import sys

from ...errors import FaceCLIPError
from .command import add_arguments, run


def main() -> int:
    """Exit status: 0, 1 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m faceclip.train.prepare")
    add_arguments(parser)
    try:
        return run(parser.parse_args()) or 0
    except FaceCLIPError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130


if __name__ == "__main__":  # worker processes import this file under another name
    sys.exit(main())
