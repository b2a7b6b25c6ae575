"""Reading and writing on disk, whatever is in the file.

state_dict: tensors out of .safetensors and .pt, safely, and back. toml: a TOML file as a table. table: checks it.
torch_file: what a .pt asks for, looked through before torch builds it. plain_pickle: a pickle as plain values. header:
what a .safetensors says of itself, held against its bytes. mapped: whether a large file changed since it was loaded.
whole: a file or a folder that is there whole or not at all. picture: picture files, with a limit of pixels before they
are unpacked. remote: files by path or by address (s3://, gs://, hf://).
"""
