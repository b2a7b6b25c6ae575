"""This machine: what is published and where it lies. Nothing here imports torch.

published: the published files, with size, hash and licence. fetch: brings one. download: the command that does. jobs:
downloads that go on in a server. local: who may ask for one there. places: the host's folders and the files in them.
variables: what the environment names. onnx_runtime: which build of ONNX Runtime is in charge, and what mends it.
extras: what the package can bring. quiet: packages kept from the network.
"""
