"""What the diffusion model needs.

schedule: sizes, noise levels and steps. recipes: those of few-step LoRAs. regions: where a person stands. unet_config,
unet_file: the UNet's sizes and its file. unet_layout: the names that SDXL's original layout has for its weights.
difference: two UNets apart, as a LoRA. diffusion_file: a file of either family, by its weights. flux_config, flux_file,
flux_layout, flux_schedule: the same for FLUX.
"""
