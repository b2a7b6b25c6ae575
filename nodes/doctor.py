"""The node that looks at the installation."""

from comfy_api.latest import io, ui
from comfyui_version import __version__ as host_version

from ..faceclip.doctor.examine import examine
from ..faceclip.doctor.finding import report
from ..faceclip.install.places import FOLDERS
from . import host
from .checked import checked
from .shelf import CATEGORY


class FaceCLIPDoctor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPDoctor",
            display_name="FaceCLIP Doctor",
            category=CATEGORY,
            description="Looks at versions, ONNX Runtime, model folders, files and free memory, and shows for each "
            "problem one line that mends it. Runs by itself, nothing needs to be connected.",
            inputs=[
                io.Boolean.Input(
                    "check_hashes",
                    default=False,
                    tooltip="Read the published files whole and compare their SHA-256. 8 GB take a minute or more.",
                )
            ],
            outputs=[io.String.Output(display_name="REPORT", tooltip="The text that the node shows.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return float("nan")  # equal to nothing: what was found a run ago may be mended by now

    @classmethod
    @checked
    def execute(cls, check_hashes: bool) -> io.NodeOutput:
        folders = {key: host.folders(key) for key in FOLDERS}
        text = report(examine(host_version, folders, check_hashes, host.Progress()))
        return io.NodeOutput(text, ui=ui.PreviewText(text))
