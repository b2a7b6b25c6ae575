"""A detector in SCRFD's shape whose answer is known: it finds pure red squares of one 32 px cell.

Nine outputs (score, box, landmarks for the strides 8, 16 and 32; two anchors a cell), as in InsightFace's packs.
"""

from pathlib import Path

import numpy as np

REACH = 2.0  # the box reaches this many strides to each side of the cell's corner
LANDMARKS = ((-0.8, -0.6), (0.8, -0.6), (0.0, 0.0), (-0.6, 0.8), (0.6, 0.8))  # in strides


def write_detector(path: Path, size: int | None = None) -> Path:
    """size: the fixed input size, or None for the dynamic one of the published packs."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, outputs = [], [], {"score": [], "box": [], "kps": []}

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    for stride in (8, 16, 32):
        cells = f"cells{stride}"
        window = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", ["input.1"], [cells], **window))
        # Input values are (x - 127.5) / 128, RGB: pure red is about (1, -1, -1). Only stride 32 ever fires.
        red = np.zeros((2, 3, 1, 1), np.float32)
        red[:] = np.array([4, -4, -4], np.float32).reshape(1, 3, 1, 1)
        none = np.zeros((8, 3, 1, 1), np.float32), np.zeros((20, 3, 1, 1), np.float32)
        bias = np.array([-9, -10] if stride == 32 else [-90, -90], np.float32)
        heads = {
            "score": (red, bias, 1),
            "box": (none[0], np.full(8, REACH, np.float32), 4),
            "kps": (none[1], np.tile(np.array(LANDMARKS, np.float32).reshape(-1), 2), 10),
        }
        for head, (weight, offset, width) in heads.items():
            name = f"{head}{stride}"
            parts = [cells, constant(f"{name}.weight", weight), constant(f"{name}.bias", offset)]
            nodes.append(helper.make_node("Conv", parts, [f"{name}.map"]))
            nodes.append(helper.make_node("Transpose", [f"{name}.map"], [f"{name}.nhwc"], perm=[0, 2, 3, 1]))
            shape = constant(f"{name}.shape", np.array([-1, width], np.int64))
            flat = f"{name}.flat" if head == "score" else name
            nodes.append(helper.make_node("Reshape", [f"{name}.nhwc", shape], [flat]))
            if head == "score":
                nodes.append(helper.make_node("Sigmoid", [flat], [name]))
            outputs[head].append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n" + name, width]))
    side = [size, size] if size else ["?", "?"]
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, *side])
    return _save(path, nodes, [picture], [one for head in outputs.values() for one in head], constants)


def write_recognizer(path: Path) -> Path:
    """Another model of a pack: one 112 x 112 picture in, one vector out."""
    from onnx import TensorProto, helper

    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, 112, 112])
    vector = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3 * 112 * 112])
    return _save(path, [helper.make_node("Flatten", ["input.1"], ["out"])], [picture], [vector], [])


def _save(path: Path, nodes, inputs, outputs, constants) -> Path:
    import onnx
    from onnx import helper

    graph = helper.make_graph(nodes, "test", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path
