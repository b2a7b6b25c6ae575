"""Training: stage A aligns FaceCLIP with its teachers, stage B fine-tunes SDXL's UNet on its conditioning.

    config    one TOML file per run, checked              engine      the loop: accelerate, resume, EMA, trackers
    data      arrays in memory                            checkpoint  complete or absent, on one process or many
    shards    webdataset shards                           weights     the optimiser and the moving average

It needs more packages than the nodes do: ``pip install -r faceclip/train/requirements.txt``. Importing this package
imports none of them.
"""
