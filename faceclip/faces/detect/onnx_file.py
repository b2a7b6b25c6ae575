"""What an ONNX file makes its runtime do, looked at before: a few bytes can ask for gigabytes, or for no end."""

from pathlib import Path
from typing import Any

from ...errors import CheckpointError, shown
from ...install.published import sha256

# The networks of InsightFace's packs antelopev2 and buffalo_l (both have the same detector), as published.
PUBLISHED = {
    "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91": "det_10g.onnx, scrfd_10g_bnkps.onnx",
    "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf": "glintr100.onnx",
    "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43": "w600k_r50.onnx",
}
# What no network for faces needs: numbers out of nothing, and graphs within graphs.
_REFUSED = {
    *("ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "EyeLike", "Loop", "Scan", "If", "SequenceMap"),
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
}
_GROWING = ("Resize", "Upsample", "Pad")  # by numbers that stand in the file
_LARGEST_NUMBER = 4096
_LARGEST_SCALE = 16.0


def import_onnx() -> Any:
    """The package that parses a network. Raises whatever its import does."""
    import onnx

    return onnx


def check_network(path: Path) -> None:
    """Raise CheckpointError for a network that would take more than its weights and its pictures do.

    A published one is known by its SHA-256. Every other is parsed, and its operators are looked at.
    """
    if sha256(path) in PUBLISHED:
        return
    onnx = import_onnx()
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own
        raise CheckpointError(f"{shown(path)} is no ONNX file, or damaged ({shown(error)}).") from error
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                constants[node.output[0]] = attribute.t
    if any(tensor.external_data for tensor in constants.values()):
        raise CheckpointError(f"{shown(path)} keeps weights in other files, which is not read.")
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        if node.op_type in _REFUSED or (node.op_type in _GROWING and _grows(node, constants)):
            raise CheckpointError(
                f"{shown(path)} has the operator {shown(node.op_type)}, by which a small file takes any memory, and is "
                "none of the published networks. Take one of InsightFace's packs."
            )


def _grows(node: Any, constants: Any) -> bool:
    from onnx import numpy_helper

    for name in node.input[1:]:
        if name in constants:
            values = numpy_helper.to_array(constants[name])
            most = _LARGEST_SCALE if values.dtype.kind == "f" else _LARGEST_NUMBER
            if values.size > 64 or (values.size and not (abs(values.astype(float)) <= most).all()):
                return True
    return any(
        abs(number) > (_LARGEST_SCALE if attribute.name == "scales" else _LARGEST_NUMBER)
        for attribute in node.attribute
        for number in (*attribute.ints, *attribute.floats)
    )
