"""What a node is found by, and that a host which does not know of such things still loads the pack."""

from faceclip.comfy.server import PACK_NAME

SEARCHED = (
    "portrait, face, likeness, same person, consistent character, identity, reference photo, PuLID, InstantID, "
    "IPAdapter FaceID, PhotoMaker, face swap, insightface"
).split(", ")


def test_every_node_stands_in_a_sub_category(client):
    ours = {k: v for k, v in client.object_info().items() if PACK_NAME in v["python_module"]}
    assert len(ours) > 15
    for name, info in ours.items():
        assert info["category"].split("/")[0] == "FaceCLIP"
        assert "/" in info["category"] or name == "FaceCLIPDoctor", name


def test_the_words_that_people_search_by_are_given_to_a_host_that_knows_them(comfyui, tmp_path):
    import inside_search
    from inprocess import run_in_host

    found, folded = run_in_host(inside_search.with_newer_fields, comfyui=comfyui, base=tmp_path)
    assert set(SEARCHED) <= {word for words in found.values() for word in words}
    assert "PuLID" in found["FaceCLIPEncodePrompt"] and "face swap" in found["FaceCLIPCropFace"]
    assert folded == {"advanced": True}
