"""What benchmarks/people.py does inside a host; see tests/host/inprocess.py."""

import time

import torch

SIZE = {"width": 768, "height": 768}


def time_steps(host, files: dict, most: int, turns: int, steps: int) -> list[list[tuple[float, float]]]:
    """[turn][case]: CPU seconds and pixels of the UNet in one step, in rows of the whole picture.

    files: loader's class -> file. Cases: 0 to `most` people; then two people with `region_only`, whose scene keeps the
    usual share, and nothing.
    """
    (faceclip,) = host.node("FaceCLIPLoader", file=files["FaceCLIPLoader"], precision="auto")
    (model,) = host.node("FaceCLIPUNETLoader", file=files["FaceCLIPUNETLoader"], weight_dtype="default")
    (face,) = host.node("FaceCLIPAlignedFace", image=torch.rand(1, 112, 112, 3))
    (identity,) = host.node("FaceCLIPEncodeIdentity", faceclip=[faceclip], face=[face])
    (scene,) = host.node("FaceCLIPEncodePrompt", faceclip=faceclip, text="a street", **SIZE)
    (negative,) = host.node("FaceCLIPEncodePrompt", faceclip=faceclip, text="blurry", **SIZE)
    positives = [_with_people(host, scene, faceclip, identity, count) for count in range(most + 1)]
    for share in (0.2, 0.0):
        positives.append(_with_people(host, scene, faceclip, identity, 2, scene_share=share, region_only=True))
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", steps=steps, batch_size=1, **SIZE)
    spent = []

    def timed(apply_model, given):
        start = time.process_time()
        made = apply_model(given["input"], given["timestep"], **given["c"])
        rows = given["input"].numel() / given["input"][0].shape[0] / (SIZE["width"] // 8 * SIZE["height"] // 8)
        spent.append((time.process_time() - start, rows))
        return made

    model = model.clone()
    model.set_model_unet_function_wrapper(timed)
    result = []
    for _ in range(turns):
        turn = []
        for positive in positives:
            spent.clear()
            conditioning = {"positive": positive, "negative": negative}
            options = {"add_noise": True, "noise_seed": 0, "cfg": 5.0, "sampler": sampler, "sigmas": sigmas}
            host.node("SamplerCustom", model=model, latent_image=latent, **options, **conditioning)
            turn.append((sum(seconds for seconds, _ in spent) / steps, sum(rows for _, rows in spent) / steps))
        result.append(turn)
    return result


def _with_people(host, conditioning, faceclip, identity, count: int, **options):
    """People side by side in a scene."""
    options = {"scene_share": 0.2, **options}
    for i in range(count):
        person = {"faceclip": faceclip, "identity": identity, "text": f"person {i}", "strength": 1.0}
        box = {"region": "box", "x": i / count, "box_width": 1 / count}
        (conditioning,) = host.node("FaceCLIPAddPerson", conditioning=conditioning, **person, **box, **options, **SIZE)
    return conditioning


def time_samplings(host, files: dict, turns: int, steps: int, side: int) -> list[dict[str, float]]:
    """[turn]: CPU seconds of one step of the whole sampling, by what it is conditioned with.

    "stock" is what the host's own CLIPTextEncode gives: embeddings and a pooled vector of the same sizes, and no more.
    """
    size = {"width": side, "height": side}
    (faceclip,) = host.node("FaceCLIPLoader", file=files["FaceCLIPLoader"], precision="auto")
    (model,) = host.node("FaceCLIPUNETLoader", file=files["FaceCLIPUNETLoader"], weight_dtype="default")
    (face,) = host.node("FaceCLIPAlignedFace", image=torch.rand(1, 112, 112, 3))
    (identity,) = host.node("FaceCLIPEncodeIdentity", faceclip=[faceclip], face=[face])
    (positive,) = host.node("FaceCLIPEncodePrompt", faceclip=faceclip, text="a chef", identity=identity, **size)
    (negative,) = host.node("FaceCLIPEncodeText", faceclip=faceclip, text="blurry", **size)
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", steps=steps, batch_size=1, **size)

    def stock(entry) -> list:
        return [[torch.randn_like(entry[0]), {"pooled_output": torch.randn_like(entry[1]["pooled_output"])}]]

    ways = {"ours": (positive, negative), "stock": (stock(positive[0]), stock(negative[0]))}
    result = []
    for turn in range(turns):
        took = {}
        for name, (one, other) in sorted(ways.items(), reverse=bool(turn % 2)):
            options = {"add_noise": True, "noise_seed": turn, "cfg": 5.0, "sampler": sampler, "sigmas": sigmas}
            start = time.process_time()
            host.node("SamplerCustom", model=model, latent_image=latent, positive=one, negative=other, **options)
            took[name] = (time.process_time() - start) / steps
        result.append(took)
    return result
