"""What test_identities.py does inside a host; see inprocess.py."""

import torch


def compare_with_prompt(host, file: str) -> dict:
    """A person over the whole picture, at neutral settings, against FaceCLIP Prompt: what is equal, to the last bit."""
    (model,) = host.node("FaceCLIPLoader", file=file, precision="auto")
    picture = torch.rand(1, 112, 112, 3, generator=torch.Generator().manual_seed(1))
    (face,) = host.node("FaceCLIPAlignedFace", image=picture)
    (identity,) = host.node("FaceCLIPEncodeIdentity", faceclip=[model], face=[face])
    size = {"width": 136, "height": 184}
    text = "a chef in a (white:1.3) kitchen"
    (alone,) = host.node("FaceCLIPEncodePrompt", faceclip=model, text=text, identity=identity, **size)
    (scene,) = host.node("FaceCLIPEncodePrompt", faceclip=model, text="a kitchen", **size)
    (both,) = host.node(
        "FaceCLIPAddPerson",
        conditioning=scene,
        faceclip=model,
        identity=identity,
        text=text,
        region="whole picture",
        strength=1.0,
        scene_share=1.0,
        **size,
    )
    (first, first_extra), (person, person_extra) = both
    return {
        "the person's tokens": torch.equal(person, alone[0][0]),
        "the person's pooled vector": torch.equal(person_extra["pooled_output"], alone[0][1]["pooled_output"]),
        "the person's size": all(person_extra[key] == value for key, value in alone[0][1].items() if "_" not in key),
        "the person's mask": bool((person_extra["mask"] == 1).all()) and person_extra["mask_strength"] == 1.0,
        "the scene's tokens": torch.equal(first, scene[0][0]),
        "the scene's mask": bool((first_extra["mask"] == 1).all()),
        "the scene given is left alone": "mask" not in scene[0][1],
    }


def pick_latents(host) -> dict:
    """LATENTs with all that a host's node may put into one, in the order [2, 0]."""
    pick = host.pack("nodes.host").pick_latents
    samples = torch.arange(3.0).reshape(3, 1, 1, 1)
    mask = torch.arange(3.0).reshape(3, 1, 1) / 3
    picked = pick({"samples": samples, "noise_mask": mask, "batch_index": [5, 6, 7], "type": "x"}, [2, 0], 3)
    one = pick({"samples": samples, "noise_mask": mask[:1]}, [2, 0], 3)
    return {
        "samples": picked["samples"].flatten().tolist(),
        "mask": (picked["noise_mask"] * 3).flatten().tolist(),
        "index": picked["batch_index"],
        "rest": picked["type"],
        "one mask for all": (one["noise_mask"] * 3).flatten().tolist(),
    }
