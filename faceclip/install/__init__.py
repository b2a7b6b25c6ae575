"""This machine: what is published and where it lies. Nothing here imports torch.

published: the published files, with size, hash and licence. download: brings one. places: folders and the files in
them. onnx_runtime: which build of ONNX Runtime is in charge, and what mends it.
"""
