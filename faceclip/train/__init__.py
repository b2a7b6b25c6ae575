"""Training: stage A aligns FaceCLIP with its teachers, stage B fine-tunes SDXL's UNet on its conditioning.

    launch        the command: one run, as its file says    run_file   the run's TOML file, checked
    alignment     stage A's loss, and what it exports        diffusion  stage B's, with face_cells: where a face counts
    towers        the public towers a FaceCLIP starts from
    prepare/      photos -> shards                           small/     the small model, on cartoons that it draws
    shard_reader  webdataset shards                          data       arrays in memory
    shard_stream  one worker's samples, in an order          samples    from a shard's sample to tensors
    shard_file    the members of one, bounded                buckets    the part of a photo that is trained on
    engine        the loop: accelerate, trackers             resume     checkpoints, complete or absent
    examination   held-out samples in between                validation  what is asked of each stage
    checkpoint_index  reads a checkpoint's parts without running what they say
    optimiser     the optimiser and the moving average       retrieval  is the right one the nearest?
    processes     accelerate, and signals                    adapter    a LoRA on the UNet
    cache         what frozen models make of shards; cached_sample: read again

It needs more packages than the nodes do, the extra ``train``: ``pip install -e ".[train]"`` in the repository.
Importing this package imports none of them.
"""
