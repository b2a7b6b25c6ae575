"""What the UNet tests do inside the host; see inprocess.py."""

import resource
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def _conditioning(tensors: dict, name: str, width: int, height: int) -> list:
    """A CONDITIONING as FaceCLIP Prompt makes it."""
    extras = {"pooled_output": tensors[f"{name}.pooled"], "width": width, "height": height}
    return [[tensors[f"{name}.embeddings"], extras]]


def _random_conditioning(model, width: int, height: int) -> dict:
    """positive and negative for SamplerCustom, of the model's widths."""
    config = model.model.model_config.unet_config
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in ("positive", "negative"):
        tensors[f"{name}.embeddings"] = torch.randn(1, 77, config["context_dim"], generator=generator)
        tensors[f"{name}.pooled"] = torch.randn(1, config["adm_in_channels"] - 6 * 256, generator=generator)
    return {name: _conditioning(tensors, name, width, height) for name in ("positive", "negative")}


def _sample(host, model, conditioning: dict, sampler, sigmas, latent, seed: int = 0) -> torch.Tensor:
    output, _ = host.node(
        "SamplerCustom",
        model=model,
        add_noise=True,
        noise_seed=seed,
        cfg=5.0,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
        **conditioning,
    )
    return output["samples"]


def sample(host, folder: str, file: str, weight_dtype: str, width: int, height: int, steps: int, seed: int) -> dict:
    """Load, take the published steps with guidance 5 from FOLDER/conditioning.safetensors, and keep noise and latents.

    Returns the figures of the run; FOLDER/host.safetensors has `noise` and `latents` (in the model's own scale).
    """
    import comfy.sample

    tensors = load_file(Path(folder) / "conditioning.safetensors")
    conditioning = {name: _conditioning(tensors, name, width, height) for name in ("positive", "negative")}
    (model,) = host.node("FaceCLIPUNETLoader", file=file, weight_dtype=weight_dtype)
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", width=width, height=height, steps=steps, batch_size=1)
    noise = comfy.sample.prepare_noise(latent["samples"], seed)
    samples = _sample(host, model, conditioning, sampler, sigmas, latent, seed)
    latents = model.model.process_latent_in(samples)
    save_file({"noise": noise, "latents": latents.contiguous()}, Path(folder) / "host.safetensors")
    return {"dtype": str(model.model.get_dtype()), "shape": list(latents.shape)}


def tiny_model(host) -> dict:
    """Facts about the small model, from file to picture, in each weight dtype."""
    from comfy_extras.nodes_custom_sampler import SplitSigmas

    file, facts = "faceclip_sdxl_tiny.safetensors", {"dtypes": {}}
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", width=64, height=128, steps=4, batch_size=2)
    facts["latent"] = list(latent["samples"].shape)
    for name in host.pack("nodes.host_unet").WEIGHT_DTYPES:
        (model,) = host.node("FaceCLIPUNETLoader", file=file, weight_dtype=name)
        samples = _sample(host, model, _random_conditioning(model, 64, 128), sampler, sigmas, latent)
        facts["dtypes"][name] = [str(model.model.get_dtype()), bool(samples.isfinite().all())]

    (model,) = host.node("FaceCLIPUNETLoader", file=file, weight_dtype="fp32")
    conditioning = _random_conditioning(model, 64, 128)
    samples = _sample(host, model, conditioning, sampler, sigmas, latent)
    (vae,) = host.nodes.VAELoader().load_vae("faceclip_tiny_vae.safetensors")
    picture = vae.decode(samples)
    facts["picture"] = [list(picture.shape), float(picture.min()), float(picture.max()), float(picture.std())]
    facts["encoded"] = [list(vae.encode(picture).shape), bool(vae.encode(picture).isfinite().all())]

    # Where the two ways of beginning must differ, and where they must not.
    stock = host.node("KSamplerSelect", sampler_name="euler")[0]
    low = SplitSigmas.execute(sigmas, 2).args[1]
    image = {"samples": torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(2))}
    facts["whole schedule is as stock"] = torch.equal(
        samples, _sample(host, model, conditioning, stock, sigmas, latent)
    )
    facts["later part is as stock"] = torch.equal(
        _sample(host, model, conditioning, sampler, low, image), _sample(host, model, conditioning, stock, low, image)
    )
    return facts


def first_latents(host) -> dict:
    """The factor on the first noise, by what the sampler is given."""
    from types import SimpleNamespace

    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    wrap = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=Sampling()))
    sigmas, sampler, *_ = host.node("FaceCLIPSampling", width=64, height=64, steps=50, batch_size=1)
    sampler.sampler_function = lambda model, noise, *args, **kwargs: noise

    def factor(levels, latent: float = 0.0) -> float:
        noise = torch.ones(1, 4, 8, 8)
        result = sampler.sample(wrap, levels, {}, None, noise, torch.full_like(noise, latent))
        return float(result[0, 0, 0, 0])

    largest = wrap.inner_model.model_sampling.sigma_max
    return {
        "sigmas": sigmas[:3].tolist(),
        "whole": factor(sigmas),
        "from the second": factor(sigmas[1:]),
        "from the second, on a picture": factor(sigmas[1:], 10.0),
        "largest": [float(largest), factor(torch.tensor([float(largest), 0.0]))],
    }


def same_config(host) -> list:
    """The published config in our words and in the host's own, entry by entry where they differ."""
    import comfy.model_detection

    unet_config = host.pack("faceclip.sampling.unet_config")
    ours = host.pack("nodes.host_unet").host_config(unet_config.SDXL)
    state = {
        key: torch.empty(shape, device="meta") for key, shape in unet_config.expected_shapes(unet_config.SDXL).items()
    }
    theirs = comfy.model_detection.unet_config_from_diffusers_unet(state)
    # num_head_channels is set by the host's SDXL class, dtype after the choice of one
    return [key for key in {*ours, *theirs} - {"dtype", "num_head_channels"} if ours.get(key) != theirs.get(key)]


def refusals(host, files: list) -> dict:
    """What the loader says to each file: the exception's class and text."""
    said = {}
    for file in files:
        try:
            host.node("FaceCLIPUNETLoader", file=file, weight_dtype="default")
            said[file] = ["nothing", ""]
        except Exception as error:
            said[file] = [type(error).__name__, str(error)]
    return said


def load_classic(host) -> list:
    """The second copy that newer hosts ask the first one's loader for."""
    (model,) = host.node("FaceCLIPUNETLoader", file="faceclip_sdxl_tiny.safetensors", weight_dtype="fp32")
    loader, arguments = model.cached_patcher_init
    copy = loader(*arguments, disable_dynamic=True)
    a, b = model.model.diffusion_model.state_dict(), copy.model.diffusion_model.state_dict()
    return [type(copy).__name__, len(a), a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)]


def full_size(host, file: str, weight_dtype: str) -> dict:
    """Load a full-size UNet and take one 256 x 256 step with guidance: seconds and memory."""
    begin = time.perf_counter()
    (model,) = host.node("FaceCLIPUNETLoader", file=file, weight_dtype=weight_dtype)
    loaded = time.perf_counter()
    anonymous = _status("RssAnon")
    peak_after_load = _status("VmHWM")
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", width=256, height=256, steps=1, batch_size=1)
    samples = _sample(host, model, _random_conditioning(model, 256, 256), sampler, sigmas, latent)
    return {
        "load_s": loaded - begin,
        "step_s": time.perf_counter() - loaded,
        "own_memory_after_load_gb": anonymous,
        "peak_after_load_gb": peak_after_load,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "weights": len(model.model.diffusion_model.state_dict()),
        "dtype": str(model.model.get_dtype()),
        "finite": bool(samples.isfinite().all()),
    }


def _status(name: str) -> float:
    """A line of /proc/self/status in GB. RssAnon leaves out pages of files, which the system can take back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1e6
    return float("nan")


def lora_samples(host, sets: list[list]) -> list[dict]:
    """For each base, tuned UNet and list of LoRAs: how far latents of the base with each LoRA, put on by the stock
    loader, are from those of the tuned UNet."""
    return [_lora_samples(host, *one) for one in sets]


def _lora_samples(host, base: str, tuned: str, loras: list[str]) -> dict:
    def load(file):
        return host.node("FaceCLIPUNETLoader", file=file, weight_dtype="fp32")[0]

    def draw(model):
        conditioning = _random_conditioning(model, 64, 64)
        sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", width=64, height=64, steps=3, batch_size=1)
        return _sample(host, model, conditioning, sampler, sigmas, latent)

    plain, wanted = load(base), draw(load(tuned))
    loader = host.nodes.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]()
    models = {file: loader.load_lora_model_only(plain, file, 1.0)[0] for file in loras}
    far = {name: (draw(model) - wanted).abs().max().item() for name, model in {"": plain, **models}.items()}
    size = wanted.abs().max().item()
    return {
        "far": {name: value / size for name, value in far.items()},
        "patched": {len(one.patches) for one in models.values()} == {len(plain.model_state_dict("diffusion_model."))},
    }


def cut_while_in_use(host, unet: str, encoder: str) -> dict[str, str]:
    """Large files, whose weights stay in them, cut short in the middle of loading and after it: what each use says."""
    host.pack("faceclip.files.mapped").COPIED = 0
    told = {}

    def cut(path: str):
        with open(path, "r+b") as file:
            file.truncate(1000)

    def note(name: str, use) -> None:
        try:
            use()
            told[name] = "nothing"
        except Exception as error:
            told[name] = str(error)

    models = Path(host.base) / "models"
    path = models / "diffusion_models" / "cut.safetensors"
    path.write_bytes((models / "diffusion_models" / unet).read_bytes())
    note("unet", lambda: host.pack("nodes.host_unet").load_unet(str(path), progress=lambda *_: cut(path)))
    path = models / "faceclip" / "cut.safetensors"
    path.write_bytes((models / "faceclip" / encoder).read_bytes())
    managed = host.pack("nodes.host").ManagedFaceCLIP(str(path), None, lambda *_: None)
    managed.encode_prompt(["a"])
    cut(path)
    note("prompt", lambda: managed.encode_prompt(["a"]))
    note("face", lambda: managed.encode_identity(torch.zeros(1, 3, 112, 112)))
    note("hash", lambda: managed.encoder_hash)
    return told
