"""What the engine asks of its surroundings: accelerate, for the processes that train together, and signals."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from torch.distributed.fsdp import MixedPrecisionPolicy

from ..errors import InputError
from .run_file import Settings

log = logging.getLogger(__name__)


def make_accelerator(settings: Settings) -> Accelerator:
    """An Accelerator for these settings: the launcher's environment says how many processes and which form.

    InputError for a tracker that is not installed.
    """
    available = {str(one) for one in get_available_trackers()}
    if missing := [name for name in settings.trackers if name not in available]:
        raise InputError(f"trackers: {missing[0]} given, but it is not installed: python -m pip install {missing[0]}")
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != settings.precision:
        AcceleratorState._reset_state()  # an earlier run of this process had another precision
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        log_with=list(settings.trackers) or None,
        project_config=ProjectConfiguration(
            project_dir=str(settings.output), logging_dir=str(settings.output / "logs")
        ),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.distributed_type == "FSDP":
        plugin = accelerator.state.fsdp_plugin
        assert plugin is not None
        if plugin.fsdp_version != 2:
            raise InputError(f"fsdp_version: {plugin.fsdp_version} given, 2 wanted (see faceclip/train/accelerate)")
        # The same numbers as under DDP: weights and inputs stay in float32, and autocast chooses what runs in bf16.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    return accelerator


@contextlib.contextmanager
def signals(ask: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT ask a run to save and stop; a second one ends it at once. Only in the main thread."""
    before = {}

    def asked(number, frame):
        log.warning("%s: saving a checkpoint after this step, then stopping.", signal.Signals(number).name)
        ask()
        signal.signal(number, before[number])

    with contextlib.suppress(ValueError):  # another thread may not set handlers
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, asked)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
