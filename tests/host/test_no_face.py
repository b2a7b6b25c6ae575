"""A batch with a faceless picture in a real server: each choice of `on_no_face`, and what the node shows of it."""

import graphs
import pytest

from faceclip.comfy.server_errors import ExecutionFailed


def graph(**choice) -> dict:
    """Align Face on the astronaut and an empty picture of the same size; its crops and its report are shown."""
    return {
        "photo": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "empty": {
            "class_type": "EmptyImage",
            "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 0x406080},
        },
        "both": {"class_type": "ImageBatch", "inputs": {"image1": ["photo", 0], "image2": ["empty", 0]}},
        **graphs.detected("both", **choice),
        "crops": {"class_type": "PreviewImage", "inputs": {"images": ["align", 1]}},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["align", 2]}},
    }


@pytest.mark.parametrize("choice", [{}, {"on_no_face": "error"}])
def test_it_stops_unless_told_otherwise(client, yunet_name, choice):
    """The first case is a workflow saved before there was a choice."""
    with pytest.raises(ExecutionFailed) as failed:
        client.run(graph(**choice), timeout=120)
    assert failed.value.node_type == "FaceCLIPAlignFace"
    assert "No face was found in picture 2 of 2" in failed.value.exception_message


@pytest.mark.parametrize(
    ("choice", "crops", "outcome"),
    [
        ("skip image", 1, "no face, skipped"),
        ("use whole picture", 2, "no face, the whole picture is used: poor likeness"),
    ],
)
def test_the_outcome_of_each_picture_is_shown_logged_and_passed_on(client, server, yunet_name, choice, crops, outcome):
    result = client.run(graph(on_no_face=choice), timeout=120)
    assert len(result.images("crops")) == crops
    assert len(result.images("align")) == 2  # the preview shows every picture
    (text,) = result.outputs["align"]["text"]
    first, second = text.splitlines()
    assert first.startswith("picture 1: face 0 of 1, score 0.9")
    assert second == f"picture 2: {outcome}"
    assert result.outputs["report"]["text"] == [text]
    assert "No face was found in picture 2 of 2" in server.log_text()


def test_skipping_leaves_nothing_of_a_batch_without_faces(client, yunet_name):
    prompt = graph(on_no_face="skip image")
    prompt["align"]["inputs"]["image"] = ["empty", 0]
    with pytest.raises(ExecutionFailed) as failed:
        client.run(prompt, timeout=120)
    assert failed.value.exception_type == "faceclip.NoFaceError"
