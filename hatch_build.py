"""What hatchling does beyond pyproject.toml when it builds the package."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

# ComfyUI's registry tells by these which machines a pack is for; PyPI knows the first one only.
ACCELERATORS = ("NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal")


class MetadataHook(MetadataHookInterface):
    """The registry's classifiers, and a README whose links lead somewhere from any page."""

    def get_known_classifiers(self) -> list[str]:
        return [f"Environment :: GPU :: {name}" for name in ACCELERATORS]

    def update(self, metadata: dict) -> None:
        """Fill in the fields that pyproject.toml calls dynamic: the README, its relative links made absolute."""
        repository, text = metadata["urls"]["Repository"], Path(self.root, "README.md").read_text("utf-8")
        text = re.sub(r"\]\((?![a-z]+:|#)(?=[^)]*\.png\))", f"]({repository}/raw/main/", text)
        text = re.sub(r"\]\((?![a-z]+:|#)", f"]({repository}/blob/main/", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
