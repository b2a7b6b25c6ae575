"""ComfyUI-FaceCLIP: pictures of one person, from a photo and a prompt, with SDXL.

A host too old for these nodes gets one clear message and no nodes; the rest of ComfyUI keeps working.
"""

import logging
import re

MINIMUM_HOST = (0, 3, 75)
WEB_DIRECTORY = "./web"


def _host_version() -> tuple[int, ...]:
    try:
        from comfyui_version import __version__ as version
    except ImportError:  # hosts from before they told their version
        return (0,)
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


if _host_version() >= MINIMUM_HOST:
    from .nodes import FaceCLIPExtension

    async def comfy_entrypoint():
        return FaceCLIPExtension()

else:
    logging.getLogger(__name__).error(
        "ComfyUI-FaceCLIP needs ComfyUI %s or newer, this is %s. Its nodes are left out; update ComfyUI to use them.",
        ".".join(map(str, MINIMUM_HOST)),
        ".".join(map(str, _host_version())),
    )
    NODE_CLASS_MAPPINGS = {}  # what such a host looks for, so that it reports no failed import
