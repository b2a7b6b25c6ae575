"""A second device for torch, backed by RAM, that stands in for a GPU where there is none.

Built when imported, by the machine's C++ compiler and ninja, into torch's folder for extensions.
"""

import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch.utils import cpp_extension

NAME = "ram"
_CPU_MEMORY = 16 * 2**30  # what the host is told of the CPU's


class _Module:
    """`torch.ram`: what torch asks of a device's module."""

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def device_count():
        return 1

    @staticmethod
    def current_device():
        return 0

    @staticmethod
    def _is_in_bad_fork():
        return False

    @staticmethod
    def manual_seed_all(seed):
        """Arithmetic is the CPU's, and so is its generator."""

    @staticmethod
    def get_amp_supported_dtype():
        return [torch.float16]


def _build() -> torch.device:
    # ninja may be installed beside this Python only.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    source = str(Path(__file__).with_name("ram_device.cpp"))
    cpp_extension.load("faceclip_ram_device", [source], extra_cflags=["-O1"], is_python_module=False)
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _Module)
    torch.utils.generate_methods_for_privateuse1_backend()
    torch.ops.ram_device.start()
    return torch.device(NAME, 0)


device = _build()


def bytes_held() -> int:
    """Bytes of all tensors that live on the device."""
    return torch.ops.ram_device.bytes_held()


class StandInGPU:
    """Makes the host's model management take the device for its GPU; `total` bytes, which a test may change."""

    def __init__(self, mm: ModuleType, total: int):
        self.total = total
        mm.get_torch_device = lambda: device
        mm.get_free_memory = self._free
        mm.get_total_memory = self._total
        mm.soft_empty_cache = lambda force=False: None
        mm.should_use_fp16 = lambda *args, **kwargs: True
        for name in ("supports_fp8_compute", "supports_nvfp4_compute", "supports_mxfp8_compute"):
            if hasattr(mm, name):
                setattr(mm, name, lambda *args, **kwargs: False)  # they ask NVIDIA's driver
        mm.cpu_state = mm.CPUState.GPU
        mm.vram_state = mm.set_vram_to = mm.VRAMState.NORMAL_VRAM
        if hasattr(mm, "get_all_torch_devices"):  # newer hosts
            mm.get_all_torch_devices = lambda exclude_current=False: [] if exclude_current else [device]

    def _free(self, dev=None, torch_free_too=False):
        free = _CPU_MEMORY if dev is not None and dev.type == "cpu" else self.total - bytes_held()
        return (free, free) if torch_free_too else free

    def _total(self, dev=None, torch_total_too=False):
        total = _CPU_MEMORY if dev is not None and dev.type == "cpu" else self.total
        return (total, total) if torch_total_too else total
