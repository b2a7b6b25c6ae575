"""The published files: names, sizes, hashes, licences and where they come from. Nothing is downloaded here."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath


@dataclass(frozen=True)
class PublishedFile:
    """One file on Hugging Face. size, sha256: None where nobody here has measured the published file.

    converted: names under which `python -m faceclip convert` leaves it, as the help pages write them. by_default: a
    download that names no file brings it.
    """

    name: str
    repo: str
    path: str
    sha256: str | None
    licence: str
    folder: str
    size: int | None = None
    about: str = ""
    converted: tuple[str, ...] = ()
    by_default: bool = True

    @property
    def address(self) -> str:
        """What a browser or a program downloads; `url` is the page about it."""
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.path}"

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repo}/blob/main/{self.path}"

    @property
    def source(self) -> str:
        """Where it is to be had, as a sentence."""
        return f"Get {self.name} from {self.url} (licence: {self.licence})."


ENCODER = PublishedFile(
    name="face_clip_encoder.pt",
    repo="ByteDance/FaceCLIP",
    path="model/face_clip_encoder.pt",
    sha256="0f821204adf88a8c6888b59cc90dd8a4787db41cb0fecf3f88950b56070b237d",
    licence="CC BY-NC 4.0 (non-commercial)",
    folder="faceclip",
    about="FaceCLIP encoder, both branches, about 3.15 GB",
    converted=("face_clip_encoder.safetensors",),
)
UNET = PublishedFile(
    name="unet.pt",
    repo="ByteDance/FaceCLIP",
    path="model/unet.pt",
    sha256="542e4b5def340ebe2fbabfe8550d2d2be2479b9d79ef356270453efb3aaaf9bf",
    licence="CC BY-NC 4.0 (non-commercial)",
    folder="diffusion_models",
    size=5_135_400_674,
    about="SDXL UNet fine-tuned on FaceCLIP conditioning, 5.1 GB",
    converted=("faceclip_sdxl_unet.safetensors", "unet.safetensors"),
)
YUNET = PublishedFile(
    name="face_detection_yunet_2023mar.onnx",
    repo="opencv/face_detection_yunet",
    path="face_detection_yunet_2023mar.onnx",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    licence="MIT",
    folder="face_detection",
    size=232_589,
    about="YuNet face detector, 0.2 MB",
)
VAE = PublishedFile(
    name="sdxl_vae.safetensors",
    repo="stabilityai/sdxl-vae",
    path="sdxl_vae.safetensors",
    sha256="63aeecb90ff7bc1c115395962d3e803571385b61938377bc7089b36e81e92e2e",
    licence="MIT",
    folder="vae",
    about="SDXL's VAE, about 335 MB",
)
SFACE = PublishedFile(
    name="face_recognition_sface_2021dec.onnx",
    repo="opencv/face_recognition_sface",
    path="face_recognition_sface_2021dec.onnx",
    sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
    licence="Apache-2.0",
    folder="face_recognition",
    size=38_696_353,
    about="SFace face recogniser, which may judge likeness commercially, 39 MB",
)
_FLUX_LICENCE = "FLUX.1-dev's own non-commercial licence"
T5_ENCODER = PublishedFile(
    name="face_t5_encoder.pt",
    repo="ByteDance/FaceCLIP",
    path="model/face_t5_encoder.pt",
    sha256=None,
    licence="CC BY-NC 4.0 (non-commercial)",
    folder="faceclip",
    about="FaceT5 encoder with its CLIP-L and T5-XXL, about 6.3 billion weights (12.6 GB in bf16)",
    converted=("face_t5_encoder.safetensors",),
    by_default=False,
)
DIT = PublishedFile(
    name="dit.pt",
    repo="ByteDance/FaceCLIP",
    path="model/dit.pt",
    sha256=None,
    licence=f"CC BY-NC 4.0 (non-commercial), and {_FLUX_LICENCE} for what comes from there",
    folder="diffusion_models",
    about="FLUX.1-dev fine-tuned on FaceT5 conditioning, 11.9 billion weights (23.8 GB in bf16)",
    converted=("facet5_flux.safetensors", "dit.safetensors"),
    by_default=False,
)
FLUX_VAE = PublishedFile(
    name="ae.safetensors",
    repo="black-forest-labs/FLUX.1-dev",
    path="ae.safetensors",
    sha256=None,
    licence=_FLUX_LICENCE,
    folder="vae",
    about="FLUX.1-dev's VAE; its page wants you logged in and its terms accepted",
    by_default=False,
)
FILES = {
    "encoder": ENCODER,
    "unet": UNET,
    "vae": VAE,
    "yunet": YUNET,
    "sface": SFACE,
    "t5-encoder": T5_ENCODER,
    "dit": DIT,
    "flux-vae": FLUX_VAE,
}


def download_command(file: PublishedFile) -> str:
    """The command that brings a published file into the models folder."""
    return f"python -m faceclip download {next(name for name, one in FILES.items() if one == file)}"


def sha256(path: str | os.PathLike, progress: Callable[[int, int], None] | None = None) -> str:
    """The SHA-256 of a file as lower-case hex. progress(bytes done, bytes in all) is called about every 16 MB."""
    path = Path(path)
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with open(path, "rb") as file:
        while block := file.read(16 * 2**20):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done, total)
    return digest.hexdigest()


def same_model(name: str, listed: Iterable[str]) -> str | None:
    """The file of `listed` that is to be used for `name`: itself, else the same published model under another name.

    That is one in a subfolder, or the converted one where the published one is asked for, or the other way round.
    None if there is none, and for a name that is no published model's.
    """
    listed = list(listed)
    if name in listed:
        return name
    base = PureWindowsPath(name).name
    for file in FILES.values():
        names = [*file.converted, file.name]
        if base in names:
            names = [base, *names]
            found = [one for one in listed if PureWindowsPath(one).name in names]
            return min(found, key=lambda one: names.index(PureWindowsPath(one).name), default=None)
    return None


def identify(digest: str) -> PublishedFile | None:
    """The published file with this SHA-256, if it is one."""
    return next((file for file in FILES.values() if file.sha256 == digest), None)


def allowance(path: str | os.PathLike) -> Path:
    """Where it is noted that this face detector's file may be opened though it is no published one.

    It holds the SHA-256 of the file, so that a file that changes later is refused again.
    """
    return Path(f"{os.fspath(path)}.allowed")


def is_allowed(path: str | os.PathLike, digest: str) -> bool:
    """True where `python -m faceclip allow-detector` has allowed the file at `path` with this SHA-256."""
    try:
        with open(allowance(path), "rb") as file:
            return file.read(64).decode("ascii", "replace") == digest
    except OSError:
        return False
