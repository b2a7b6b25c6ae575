"""The judges of likeness for tests; the recognisers of InsightFace and SFace are small models made on the spot."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from faceclip.identity.judge import InsightFaceJudge, OwnJudge, SFaceJudge
from faceclip.install import published


def recognition_model(path, seed=0):
    """A model of the shape insightface takes for recognition: 112 px in, one vector out."""
    weight = np.random.RandomState(seed).standard_normal((3 * 14 * 14, 16)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "recognition",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def judge_of(kind: str, model, folder):
    """ "own": the face encoder of `model`; "insightface", "sface": a recogniser written into `folder`."""
    if kind == "own":
        return OwnJudge(model.encode_identity)
    if kind == "sface":
        path = folder / published.SFACE.name
        recognition_model(path)
        return SFaceJudge(path, published.sha256(path))
    recognition_model(folder / "w600k_r50.onnx")
    return InsightFaceJudge(folder, "CPU")
