"""The pack in a real ComfyUI: it loads, shows its nodes, and leaves the host as it was."""

import pytest

from faceclip.comfy.server import PACK_NAME, ComfyServer
from faceclip.comfy.server_errors import ExecutionFailed, ExecutionInterrupted, PromptRejected, ServerError


def picture_prompt(prefix: str = "plain") -> dict:
    """A prompt of the host's own nodes: the photo, made smaller and saved."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "2": {
            "class_type": "ImageScale",
            "inputs": {"image": ["1", 0], "upscale_method": "area", "width": 64, "height": 64, "crop": "disabled"},
        },
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
    }


def test_the_pack_loads(server, client):
    log = server.log_text()
    assert "IMPORT FAILED" not in log, log
    assert PACK_NAME in log
    loader = client.object_info("FaceCLIPLoader")
    assert loader["category"].startswith("FaceCLIP")


def test_every_node_of_the_pack_is_prefixed_and_explained(client):
    ours = {k: v for k, v in client.object_info().items() if PACK_NAME in v.get("python_module", "")}
    assert ours
    for node_id, node in ours.items():
        assert node_id.startswith(("FaceCLIP", "FaceT5"))
        assert node["description"], node_id


def test_a_prompt_runs_and_its_picture_comes_back(client):
    seen = []
    result = client.run(picture_prompt(), on_event=seen.append)
    assert result.images("3") == result.images()
    assert client.view(result.images("3")[0])[:8] == b"\x89PNG\r\n\x1a\n"
    assert "executed" in [event.type for event in seen]
    # Everything but the saving is now remembered by the host, and the result is the same.
    assert client.run(picture_prompt()).images("3")


def test_an_uploaded_picture_can_be_loaded(server, client):
    data = (server.base_directory / "input" / "astronaut.png").read_bytes()
    name = client.upload_image(data, "a photo.png", subfolder="people")
    prompt = picture_prompt("uploaded")
    prompt["1"]["inputs"]["image"] = name
    assert client.run(prompt).images("3")


def test_a_refused_prompt_carries_the_servers_reasons(client):
    prompt = picture_prompt()
    prompt["1"]["inputs"]["image"] = "nobody.png"
    with pytest.raises(PromptRejected) as refused:
        client.run(prompt)
    assert list(refused.value.node_errors) == ["1"]
    assert "nobody.png" in refused.value.messages()[0]
    assert "nobody.png" in str(refused.value)


def test_an_unknown_node_is_named(client):
    with pytest.raises(PromptRejected, match="FaceCLIPNowhere"):
        client.run({"1": {"class_type": "FaceCLIPNowhere", "inputs": {}}})


def test_a_failing_node_is_named_with_its_message(client):
    with pytest.raises(ExecutionFailed, match="outside the output folder") as failed:
        client.run(picture_prompt("../../outside"))
    assert (failed.value.node_id, failed.value.node_type) == ("3", "SaveImage")
    assert failed.value.traceback


def test_a_running_prompt_can_be_cancelled(client):
    prompt = picture_prompt("cancelled")
    # Work enough for node 2 to be still busy when the cancel arrives; the host looks for it before node 3.
    prompt["4"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": 32}}
    prompt["2"]["inputs"].update(image=["4", 0], upscale_method="lanczos", width=768, height=768)

    def cancel(event):
        if event.type == "executing" and event.data.get("node") == "2":
            client.interrupt()

    with pytest.raises(ExecutionInterrupted):
        client.run(prompt, on_event=cancel, timeout=120)


def test_a_host_that_cannot_start_says_why(comfyui, tmp_path):
    server = ComfyServer(comfyui, tmp_path, pack=None, arguments=["--no-such-option"])
    with pytest.raises(ServerError, match="--no-such-option"):
        server.start()
    assert not server.is_running()
