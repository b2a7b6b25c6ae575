"""The package is cheap to import."""

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
    assert all(getattr(faceclip, name) for name in faceclip.__all__)
    assert issubclass(faceclip.FaceT5, faceclip.FaceCLIP.__base__) and faceclip.FaceT5Config.from_json
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        faceclip.nothing  # noqa: B018
