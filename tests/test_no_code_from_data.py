"""Nothing that a file, a folder or a server holds becomes code: every reader that could build objects is known here."""

import ast
from pathlib import Path

import pytest

from faceclip.comfy.environment import PACK_ROOT

# Modules and functions that run, or build, what their input says. A call with `weights_only=True` is none.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "runpy"}
CALLS = {
    "eval", "exec", "compile", "__import__", "torch.jit.load", "torch.hub.load", "yaml.load", "yaml.full_load",
    "yaml.unsafe_load", "yaml.load_all", "np.load", "numpy.load", "np.fromregex", "torch.load", "pd.read_pickle",
    "os.system", "os.popen", "importlib.import_module", "import_module", "hub.load_state_dict_from_url",
}  # fmt: skip
# Where such a reader is, and why what it reads cannot run.
KNOWN = {
    "faceclip/files/plain_pickle.py": {"pickle"},  # an unpickler that looks up no class
    "faceclip/files/torch_file.py": {"pickle"},  # names of opcodes; what torch.load reads is looked through by the same
    # Names out of their own tables:
    **dict.fromkeys(("faceclip/__main__.py", "faceclip/__init__.py", "faceclip/doctor/software.py"), {"import_module"}),
}
DECODERS = {"decode", "autodecode", "WebDataset", "DataPipeline", "compat", "wds"}  # webdataset's, which unpickle .pyd


def sources() -> list[Path]:
    places = [PACK_ROOT / "faceclip", PACK_ROOT / "nodes"]
    return sorted(path for place in places for path in place.rglob("*.py")) + [PACK_ROOT / "__init__.py"]


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_harmless(name: str, call: ast.Call) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords}

    def says(key: str, value: bool) -> bool:
        return isinstance(given.get(key), ast.Constant) and given[key].value is value

    if name == "torch.load":
        return says("weights_only", True)
    if name in ("np.load", "numpy.load"):
        return not ("allow_pickle" in given and not says("allow_pickle", False))
    return False


def findings(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            found |= {module} if module in MODULES and not node.level else set()
            if (node.module or "").startswith("webdataset"):
                found |= {f"webdataset.{alias.name}" for alias in node.names if alias.name in DECODERS}
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            if name in CALLS and not is_harmless(name, node):
                found.add(name)
            shell = next((keyword.value for keyword in node.keywords if keyword.arg == "shell"), None)
            if isinstance(shell, ast.Constant) and shell.value:
                found.add(f"{name} with a shell")
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACK_ROOT).as_posix())
def test_no_reader_builds_objects(path):
    assert findings(path) <= KNOWN.get(path.relative_to(PACK_ROOT).as_posix(), set())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load('a')", "eval('1')",
        "torch.load('a', weights_only=False)", "import yaml\nyaml.load('a')", "np.load('a', allow_pickle=True)",
        "np.load('a', allow_pickle=x)", "from webdataset import WebDataset", "subprocess.run('a', shell=True)",
        "torch.load('a', weights_only=x)",
    ],
)  # fmt: skip
def test_each_kind_of_reader_is_seen(tmp_path, source):
    (tmp_path / "a.py").write_text(source)
    assert findings(tmp_path / "a.py")
