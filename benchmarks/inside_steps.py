"""What benchmarks/people.py does inside a host; see tests/host/inprocess.py."""

import time

import torch

SIZE = {"width": 768, "height": 768}


def time_steps(host, files: dict, most: int, turns: int, steps: int) -> list[list[tuple[float, float]]]:
    """[turn][people, 0 to `most`]: CPU seconds and rows of the UNet in one step. files: loader's class -> file."""
    (faceclip,) = host.node("FaceCLIPLoader", file=files["FaceCLIPLoader"], precision="auto")
    (model,) = host.node("FaceCLIPUNETLoader", file=files["FaceCLIPUNETLoader"], weight_dtype="default")
    (face,) = host.node("FaceCLIPAlignedFace", image=torch.rand(1, 112, 112, 3))
    (identity,) = host.node("FaceCLIPEncodeIdentity", faceclip=[faceclip], face=[face])
    (scene,) = host.node("FaceCLIPEncodePrompt", faceclip=faceclip, text="a street", **SIZE)
    (negative,) = host.node("FaceCLIPEncodePrompt", faceclip=faceclip, text="blurry", **SIZE)
    positives = [_with_people(host, scene, faceclip, identity, count) for count in range(most + 1)]
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", steps=steps, batch_size=1, **SIZE)
    spent = []

    def timed(apply_model, given):
        start = time.process_time()
        made = apply_model(given["input"], given["timestep"], **given["c"])
        spent.append((time.process_time() - start, len(given["input"])))
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


def _with_people(host, conditioning, faceclip, identity, count: int):
    """People side by side in a scene."""
    for i in range(count):
        person = {"faceclip": faceclip, "identity": identity, "text": f"person {i}", "strength": 1.0}
        box = {"region": "box", "x": i / count, "box_width": 1 / count}
        (conditioning,) = host.node(
            "FaceCLIPAddPerson", conditioning=conditioning, scene_share=0.2, **person, **box, **SIZE
        )
    return conditioning
