"""What benchmarks/few_steps.py does inside a host; see tests/host/inprocess.py."""

import time

STEPS = 50


def time_recipes(host, files: dict, side: int, turns: int) -> list[dict[str, float]]:
    """For each turn: CPU seconds of sampling one picture by each recipe, and of a negative prompt. files: by loader."""
    size = {"width": side, "height": side}
    (faceclip,) = host.node("FaceCLIPLoader", file=files["FaceCLIPLoader"], precision="auto")
    (model,) = host.node("FaceCLIPUNETLoader", file=files["FaceCLIPUNETLoader"], weight_dtype="fp32")

    def encoded(text: str, **guidance):
        return host.node("FaceCLIPEncodeText", faceclip=faceclip, text=text, **size, **guidance)[0]

    prompts = {"positive": encoded("a street"), "negative": encoded("blurry")}

    def sample(recipe: str):
        settings = host.node("FaceCLIPSampling", **size, steps=STEPS, batch_size=1, recipe=recipe)
        sigmas, sampler, latent, *_, guidance = settings
        options = {"add_noise": True, "noise_seed": 3, "cfg": guidance, "sampler": sampler, "sigmas": sigmas}
        host.node("SamplerCustom", model=model, latent_image=latent, **options, **prompts)

    names = host.pack("faceclip.sampling.recipes").RECIPES
    work = {name: lambda name=name: sample(name) for name in names}
    work["negative prompt, encoded"] = lambda: encoded("blurry", guidance=5.0)
    work["negative prompt, guidance 1"] = lambda: encoded("blurry", guidance=1.0)
    return [{name: _seconds(one) for name, one in work.items()} for _ in range(turns)]


def _seconds(work) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin
