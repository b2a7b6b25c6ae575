"""What test_identities.py and test_people.py do inside a host; see inprocess.py."""

import torch

SIZE = {"width": 128, "height": 128}


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
        **_text_alone(host, model),
    }


def _text_alone(host, model) -> dict:
    """FaceCLIP Text Prompt against FaceCLIP Prompt without an identity."""
    same = {}
    for text in ("", "a (red:1.2) coat", "blurry, low quality, " * 40):
        for long_prompt in ("continue in further chunks", "cut at 77"):
            inputs = {"faceclip": model, "text": text, "long_prompt": long_prompt, **SIZE}
            ((one, one_extra),) = host.node("FaceCLIPEncodeText", **inputs)[0]
            ((other, other_extra),) = host.node("FaceCLIPEncodePrompt", **inputs)[0]
            pooled = torch.equal(one_extra.pop("pooled_output"), other_extra.pop("pooled_output"))
            same[f"{text[:9]} {long_prompt}"] = torch.equal(one, other) and pooled and one_extra == other_extra
    return same


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


class _Stage:
    """A scene, a person and what acts on them, on the small model."""

    def __init__(self, host, encoder: str, unet: str):
        self.host = host
        (self.faceclip,) = host.node("FaceCLIPLoader", file=encoder, precision="auto")
        (self.unet,) = host.node("FaceCLIPUNETLoader", file=unet, weight_dtype="default")
        picture = torch.rand(1, 112, 112, 3, generator=torch.Generator().manual_seed(1))
        (face,) = host.node("FaceCLIPAlignedFace", image=picture)
        (self.identity,) = host.node("FaceCLIPEncodeIdentity", faceclip=[self.faceclip], face=[face])
        self.scene = self.prompt("a park")

    def prompt(self, text: str) -> list:
        return self.host.node("FaceCLIPEncodePrompt", faceclip=self.faceclip, text=text, **SIZE)[0]

    def add(self, conditioning: list, **inputs) -> list:
        usual = {"text": "a person", "region": "left half", "strength": 1.0, "scene_share": 0.2, **SIZE}
        inputs = {"conditioning": conditioning, "faceclip": self.faceclip, "identity": self.identity, **usual, **inputs}
        return self.host.node("FaceCLIPAddPerson", **inputs)[0]

    def stock(self, name: str, method: str, *args, **inputs):
        return getattr(self.host.nodes.NODE_CLASS_MAPPINGS[name](), method)(*args, **inputs)[0]

    def sample(self, conditioning: list) -> torch.Tensor:
        latent = {"samples": torch.zeros(1, 4, 16, 16)}
        wired = {"positive": conditioning, "negative": self.prompt(""), "latent_image": latent}
        settings = {"seed": 3, "steps": 3, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal"}
        return self.stock("KSampler", "sample", model=self.unet, **settings, **wired)["samples"]

    def controlnet(self):
        """One of the small UNet's size with weights by chance: it stands for any."""
        import comfy.cldm.cldm
        import comfy.controlnet
        import comfy.ops

        config = self.host.pack("nodes.host_unet").host_config(self.host.pack("faceclip.small.models").UNET)
        config = {
            key: value for key, value in config.items() if key not in ("out_channels", "transformer_depth_output")
        }
        config |= {"hint_channels": 3, "num_head_channels": 64, "operations": comfy.ops.manual_cast}
        model = comfy.cldm.cldm.ControlNet(**config, dtype=torch.float32, device="cpu")
        random = torch.Generator().manual_seed(5)
        for weight in model.parameters():
            weight.data = torch.randn(weight.shape, generator=random) * 0.1
        return comfy.controlnet.ControlNet(model, load_device=torch.device("cpu"), manual_cast_dtype=torch.float32)


def all_about_people(host, encoder: str, unet: str) -> dict:
    """What each of the functions below returns, by its name."""
    stage = _Stage(host, encoder, unet)
    return {
        "controlnet": _controlnet_before_and_after(stage),
        "taken over": _what_a_person_takes_over(stage),
        "masks": _people_in_scenes_with_masks(stage),
        "sampled": _what_the_host_samples_is_not_refused(stage),
        "region": _in_their_region_alone(stage),
    }


def _controlnet_before_and_after(stage) -> dict:
    """A ControlNet on the scene, against one on scene and person together: the mean change it makes in their places."""
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(2))
    control = {"negative": stage.prompt(""), "control_net": stage.controlnet(), "image": hint, "strength": 0.5}
    control |= {"start_percent": 0.0, "end_percent": 1.0}

    def controlled(conditioning: list) -> list:
        return stage.stock("ControlNetApplyAdvanced", "apply_controlnet", conditioning, **control)

    plain = stage.sample(stage.add(stage.scene))
    shots = {
        "before": stage.sample(stage.add(controlled(stage.scene))),
        "after": stage.sample(controlled(stage.add(stage.scene))),
        "apart": stage.sample(stage.add(controlled(stage.scene), follow_scene=False)),
    }
    left = {name: float((shot - plain).abs()[..., :7].mean()) for name, shot in shots.items()}
    return {**left, "equal": float((shots["before"] - shots["after"]).abs().max())}


def _what_a_person_takes_over(stage) -> dict:
    """By what acts on the scene: whether it stands in the person's entry as where it comes after Add Person."""
    import comfy.hooks
    import node_helpers

    hooks = comfy.hooks.HookGroup()
    left = {"width": 64, "height": 128, "x": 0, "y": 0, "strength": 0.7}
    acts = {
        "range": lambda given: stage.stock("ConditioningSetTimestepRange", "set_range", given, 0.2, 0.7),
        "area": lambda given: stage.stock("ConditioningSetArea", "append", given, **left),
        "strength": lambda given: stage.stock("ConditioningSetAreaStrength", "append", given, 0.4),
        "hooks": lambda given: node_helpers.conditioning_set_values(given, {"hooks": hooks}),
        "another pack's": lambda given: node_helpers.conditioning_set_values(given, {"their_key": [1, 2]}),
    }
    found = {}
    for name, act in acts.items():
        (_, before), (_, after) = stage.add(act(stage.scene)), act(stage.add(stage.scene))
        same = before[1].keys() == after[1].keys()
        for key in before[1]:
            tensor = isinstance(before[1][key], torch.Tensor)
            same = same and (torch.equal(before[1][key], after[1][key]) if tensor else before[1][key] == after[1][key])
        (_, apart) = stage.add(act(stage.scene), follow_scene=False)
        found[name] = [same, not apart[1].keys() - stage.add(stage.scene)[1][1].keys()]
    return found


def _people_in_scenes_with_masks(stage) -> dict:
    """Where people end up: the mean of masks by quarter of the width, in latent cells."""

    def masked(conditioning: list, first: int, last: int, height: int = 128) -> list:
        mask = torch.zeros(1, height, 128)
        mask[..., first:last] = 1
        return stage.stock("ConditioningSetMask", "append", conditioning, mask, "default", 1.0)

    def quarters(entry: list) -> list[float]:
        return [round(float(part.mean()), 3) for part in entry[1]["mask"].chunk(4, dim=-1)]

    left_scene = masked(stage.scene, 0, 64)
    both = [*left_scene, *masked(stage.prompt("a road"), 64, 128, height=31)]
    late = stage.stock("ConditioningSetTimestepRange", "set_range", stage.prompt("a road"), 0.5, 1.0)
    whole = {"region": "whole picture"}
    one = stage.add(left_scene, **whole)
    two = stage.add(one, **whole)
    again = stage.add(masked(one, 0, 32), **whole)
    batch = torch.zeros(2, 1, 128, 128)
    batch[0, ..., :64], batch[1, ..., 64:] = 1, 1
    several = stage.add(stage.scene, mask=batch, scene_share=0.0)
    return {
        "a person in a masked scene": quarters(one[-1]),
        "the next one is not pushed back by the first": quarters(two[-1]),
        "a mask set between two people counts for the second": quarters(again[-1]),
        "two masked scenes that carry the same are one place": [quarters(entry) for entry in stage.add(both, **whole)],
        "scenes that act in different parts give an entry each": len(stage.add([*stage.scene, *late], **whole)),
        "one mask for each picture": [[round(float(one[..., :8].mean()), 2) for one in e[1]["mask"]] for e in several],
        "the scene is left alone": "mask" not in stage.scene[0][1],
    }


def _in_their_region_alone(stage) -> dict:
    """What the UNet is given for a person in the left half: the width of each row in a step, in latent cells."""

    def widths(conditioning: list) -> list[int]:
        seen = []
        plain = stage.unet

        def watch(apply_model, given):
            seen.extend([given["input"].shape[-1]] * len(given["input"]))
            return apply_model(given["input"], given["timestep"], **given["c"])

        stage.unet = plain.clone()
        stage.unet.set_model_unet_function_wrapper(watch)
        stage.sample(conditioning)
        stage.unet = plain
        return sorted(seen[: len(seen) // 3])  # of three steps

    alone = {"region_only": True}
    both = stage.add(stage.add(stage.scene, **alone, scene_share=0.0), **alone, scene_share=0.0, region="right half")
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(2))
    control = {"negative": stage.prompt(""), "control_net": stage.controlnet(), "image": hint, "strength": 0.5}
    control |= {"start_percent": 0.0, "end_percent": 1.0}
    controlled = stage.stock("ControlNetApplyAdvanced", "apply_controlnet", stage.scene, **control)
    usual, region = stage.sample(stage.add(stage.scene)), stage.sample(stage.add(stage.scene, **alone))
    more = stage.add(both, region="middle third")
    off = stage.add(stage.scene, region_only=False)[-1][1].keys()
    return {
        "usual": widths(stage.add(stage.scene)),
        "alone": widths(stage.add(stage.scene, **alone)),
        "nothing left of the scene": widths(both),
        "the next one is told to": sorted(more[-1][1].keys() & {"area", "set_area_to_bounds"}),
        "with a ControlNet": widths(stage.add(controlled, **alone)),
        "off is as before": off == stage.add(stage.scene)[-1][1].keys() and "area" not in off,
        "changed": [float((usual - region).abs()[..., part].mean()) for part in (slice(0, 7), slice(9, 16))],
    }


def _what_the_host_samples_is_not_refused(stage) -> list[bool]:
    """Scenes with an empty mask, with several, of any values, and with nothing left: whether each makes a picture."""
    made = []
    for mask in (torch.zeros(1, 64, 64), torch.rand(3, 50, 70), torch.rand(64, 64) * 3 - 1, torch.rand(1, 1, 16, 16)):
        scene = [[stage.scene[0][0], {**stage.scene[0][1], "mask": mask}]]
        made.append(stage.sample(stage.add(scene, follow_scene=False)))
    conditioning = stage.scene
    for region in ("left half", "right half", "middle third"):
        conditioning = stage.add(conditioning, region=region, scene_share=0.0)
    made.append(stage.sample(conditioning))
    return [bool(torch.isfinite(one).all()) for one in made]
