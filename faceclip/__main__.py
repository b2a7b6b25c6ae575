"""The command line: ``python -m faceclip COMMAND``, or ``faceclip COMMAND`` once the package is installed.

A command's modules are imported only when it is called.
"""

import argparse
import io
import sys
from importlib import import_module
from pathlib import Path

from .errors import FaceCLIPError
from .install import extras

# name -> module with add_arguments(parser) and run(arguments) -> exit status or None, what it does
COMMANDS = {
    "demo": (".comfy.demo", "set everything up, run the example in a real ComfyUI on the CPU and save the picture"),
    "convert": (".convert", "turn a published .pt file into a .safetensors file"),
    "lora": (".lora", "write what tells FaceCLIP's UNet from SDXL base as a LoRA for any SDXL checkpoint"),
    "doctor": (".doctor.command", "look at the installation and the model files, and tell what mends each problem"),
    "cache": (".train.cache", "write what a training run's frozen models make of its shards, to train on"),
    "prepare": (".train.prepare.command", "turn folders of photos with captions into shards for training"),
    "train": (".train.launch", "train FaceCLIP (alignment) or its UNet (diffusion), as a TOML file says"),
    "toy": (".train.small.command", "draw cartoon people and train the small model that comes with the pack on them"),
    "make": (".bulk.command", "make pictures by the hundred on one or many ComfyUI servers, from a grid or a table"),
    "eval": (".eval.benchmark", "measure a benchmark of people and prompts; without one, the small model of the pack"),
    "download": (
        ".install.download",
        "download published files into ComfyUI's models folder, after asking, and check them",
    ),
    "allow-detector": (
        ".faces.detect.allow",
        "try a face detector that is no published one, and let the nodes open it",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 after an error, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is spelt out
            stream.reconfigure(errors="backslashreplace")
    called = "faceclip" if Path(sys.argv[0]).stem == "faceclip" else "python -m faceclip"
    listing = "\n".join(f"  {name:16}{purpose}" for name, (_, purpose) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=called,
        usage="%(prog)s COMMAND [options]",
        description=f"commands:\n{listing}",
        epilog=f"{called} COMMAND --help tells the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS, metavar="COMMAND")
    name = parser.parse_args(argv[:1]).command
    module_name, purpose = COMMANDS[name]
    try:
        module = import_module(module_name, __package__)
        command = argparse.ArgumentParser(prog=f"{called} {name}", description=purpose)
        module.add_arguments(command)
        return module.run(command.parse_args(argv[1:])) or 0
    except FaceCLIPError as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"error: {_missing(name, error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 1


def _missing(command: str, error: ModuleNotFoundError) -> str:
    module = error.name or str(error)
    if module.startswith(f"{__package__}."):
        return (
            f"this copy of FaceCLIP has no command {command}: ComfyUI's registry carries what the nodes need. "
            f"The whole of it is at {extras.REPOSITORY}."
        )
    extra = extras.extra_of(module, first=command)
    part = f'It comes with the extra "{extra}": ' if extra else "Install what is missing: "
    return f"the package {module} is not installed in {sys.executable}. {part}{extras.install_line(extra or '')}"


if __name__ == "__main__":
    sys.exit(main())
