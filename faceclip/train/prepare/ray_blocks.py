"""Blocks of photos looked at on many machines: one Ray actor for each core. Photos, detector and the folder for the
shards lie where every machine reaches them under the same name; Ray carries file names alone."""

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import FaceCLIPError
from .shard_job import Job, Settings, load_detector, load_recogniser, write_block
from .shard_writer import Folder

_RETRIES = 3  # of an actor, and of a block that an actor died over


class _Looker:
    """What runs inside an actor. Errors go back as words: not every exception survives the way between machines."""

    def __init__(self, folder: Folder, settings: Settings):
        import cv2
        import torch

        cv2.setNumThreads(1)  # the actors are the parallelism
        torch.set_num_threads(1)
        self._given, self._models = (folder, settings), (load_detector(settings), load_recogniser(settings))

    def look(self, job: Job) -> int | str:
        """How many photos it was, or what was wrong."""
        folder, settings = self._given
        try:
            return write_block(job, folder, settings, self._models, lambda: None).photos
        except FaceCLIPError as error:
            return str(error)


def look_on_ray(
    address: str, jobs: Sequence[Job], folder: Folder, settings: Settings, report: Callable[[int], None]
) -> None:
    """The jobs' blocks, by as many actors as the cluster at this address has cores. report: photos done.

    Raises FaceCLIPError where a block cannot be written, or no actor lives long enough to.
    """
    from ...bulk.ray_pool import connected  # which needs more packages than training does

    with connected(address):
        import ray
        from ray.exceptions import RayError
        from ray.util.actor_pool import ActorPool

        count = max(1, min(len(jobs), int(ray.cluster_resources().get("CPU", 1))))
        looker = ray.remote(num_cpus=1, max_restarts=_RETRIES, max_task_retries=_RETRIES)(_Looker)
        actors: list[Any] = [looker.remote(folder, settings) for _ in range(count)]
        done, pool = 0, ActorPool(actors)

        def look(actor: Any, job: Job) -> Any:
            return actor.look.remote(job)

        try:
            for answer in pool.map_unordered(look, list(jobs)):
                found: Any = answer
                if isinstance(found, str):
                    raise FaceCLIPError(found)
                done += found
                report(done)
        except RayError as error:
            raise FaceCLIPError(
                f"Ray could not look at the photos ({str(error).strip().splitlines()[-1]}). Start the same command "
                "again; it goes on with the blocks that are missing."
            ) from error
        finally:
            for actor in actors:
                ray.kill(actor)
