"""The doctor's node in a real server: alone in its graph, with the folders that the server really searches."""

PROMPT = {"1": {"class_type": "FaceCLIPDoctor", "inputs": {"check_hashes": True}}}


def examine(client) -> str:
    (text,) = client.run(PROMPT).outputs["1"]["text"]
    return text


def test_the_node_runs_alone_and_names_what_is_there(client, base_directory, yunet_name):
    text = examine(client)
    folder = base_directory / "models" / "face_detection"
    assert f"folder face_detection: {folder}" in text
    assert f"{yunet_name}: {folder / yunet_name}, 0.2 MB, SHA-256 as published" in text
    assert "[ok]      ComfyUI: " in text and "[ok]      torch: " in text
    for key in ("faceclip", "diffusion_models"):
        assert f"folder {key}: " in text and f"{base_directory / 'models' / key}" in text


def test_the_node_looks_again_each_time(client, base_directory):
    folder = base_directory / "models" / "faceclip"
    assert "cut.safetensors" not in examine(client)
    path = folder / "cut.safetensors"
    path.write_bytes((folder / next(p.name for p in folder.glob("*.safetensors"))).read_bytes()[:-8])
    try:
        assert f"[PROBLEM] cut.safetensors: {path} is truncated" in examine(client)
    finally:
        path.unlink()
    assert "cut.safetensors" not in examine(client)
