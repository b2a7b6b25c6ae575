"""The package: cheap to import, and independent of the host."""

import ast
import pathlib
import subprocess
import sys

import pytest

import faceclip

PACKAGE = pathlib.Path(faceclip.__file__).parent


def test_importing_the_package_is_cheap():
    code = "import faceclip, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "safetensors", "open_clip", "cv2", "insightface", "onnxruntime", "PIL", "requests"}
    assert not heavy & set(done.stdout.split())
    assert "load" in dir(faceclip) and faceclip.FaceCLIP.__name__ == "FaceCLIP"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        faceclip.nothing  # noqa: B018


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_imports_neither_the_host_nor_the_nodes(path):
    depth = len(path.relative_to(PACKAGE).parts)
    forbidden = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "execution", "node_helpers"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= depth, f"{path}:{node.lineno} reaches out of the library"
            names = [node.module] if node.level == 0 else []
        else:
            continue
        assert not {name.split(".")[0] for name in names} & forbidden, f"{path}:{node.lineno}"
