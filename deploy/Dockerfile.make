# What hands the work out: Ray, and the library without a ComfyUI. Not run where it was written; see deploy/Dockerfile.
#
#   docker build -f deploy/Dockerfile.make -t faceclip-make .
FROM rayproject/ray:2.60.0-py311-cpu

USER root
COPY . /faceclip
# Without torch, OpenCV and the rest of what the nodes need: `make` needs none of it.
RUN pip install --no-cache-dir --no-deps /faceclip \
    && pip install --no-cache-dir aiohttp pydantic tqdm fsspec s3fs gcsfs numpy pillow safetensors
USER ray
WORKDIR /home/ray
