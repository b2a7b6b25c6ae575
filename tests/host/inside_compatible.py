"""What test_compatible.py runs inside a host: files for stock nodes, in the small UNet's sizes."""

from pathlib import Path


def write_controlnet(host, path: str) -> int:
    """A ControlNet under the host's own names, with random weights that act; returns the number of its tensors."""
    import comfy.cldm.cldm
    from safetensors.torch import save_file
    from seeded import seeded

    small = host.pack("faceclip.small.models")
    sizes = host.pack("nodes.host_unet").host_config(small.UNET)
    del sizes["out_channels"]
    model = comfy.cldm.cldm.ControlNet(hint_channels=3, num_head_channels=64, **sizes)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    # Eight layers in a row halve what they see of the hint, each.
    state = seeded(shapes, lambda key: 2.5 if key.startswith("input_hint_block") else 1.0)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return len(state)
