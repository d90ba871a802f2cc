"""Going on from a checkpoint: which one, what of it fits the training, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.checkpoint import load_params
from dmod.config import settings
from dmod.kvstore.fingerprint import fingerprint
from dmod.log import logger
from dmod.ndarray import NDArray
from dmod.optimizer import OptimizerStates
from dmod.recovery.contents import MODEL, states_name
from dmod.recovery.directory import CheckpointDirectory
from dmod.recovery.hyperparameters import BATCH_SIZE, OPTIMIZER, Hyperparameters, differing
from dmod.recovery.manifest import Manifest
from dmod.recovery.packing import unpack
from dmod.recovery.snapshot import Trainable, restore_worker
from dmod.recovery.writer import worker_name

__all__ = ["Found", "fingerprint_here", "newest", "own_part", "restore_own", "restore_states"]


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from."""

    manifest: Manifest
    folder: Path
    arg_params: dict[str, NDArray]
    aux_params: dict[str, NDArray]


def newest(directory: CheckpointDirectory, network: str) -> Found | None:
    """The newest whole checkpoint of a network, with its parameters."""
    for manifest in directory.valid():
        folder = directory.folder(manifest.serial)
        if manifest.network != network:
            logger.warning("%s is of another network than this module's and left out", folder)
            continue
        try:
            return Found(manifest, folder, *load_params(str(folder / MODEL), manifest.epoch))
        except (MXNetError, OSError) as error:
            logger.warning("%s is left out: %s", folder, error)
    return None


def own_part(
    found: Found, rank: int, num_workers: int, told: Hyperparameters, module: Trainable
) -> dict[str, Any] | None:
    """What this worker kept for itself, if there are as many workers, devices and instances in a batch."""
    then = found.manifest
    if then.num_workers != num_workers:
        return None
    if then.hyperparameters.get(BATCH_SIZE, told.given[BATCH_SIZE]) != told.given[BATCH_SIZE]:
        return None  # its iterator stands between two batches of another size
    path = found.folder / worker_name(rank)
    try:
        state: dict[str, Any] = unpack(path.read_bytes(), str(path))
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None
    devices = [len(devices["streams"]) for devices in state["devices"]]
    return state if devices == [len(learner.contexts) for learner in module.learners] else None


def restore_states(found: Found, told: Hyperparameters, module: Trainable, leads: bool) -> None:
    """Go on with the job's part: the optimizers' states, and what training had changed of their numbers."""
    then = found.manifest
    differ = differing(then.hyperparameters, told.given) if then.hyperparameters else {}
    if differ and leads:
        logger.warning(
            "%s was taken with other hyperparameters. Those given now count, and the result will not be that "
            "of a run with either alone: %s",
            found.folder, "; ".join(differ.values()),
        )  # fmt: skip
    for number, learner in enumerate(module.learners):
        try:
            if OPTIMIZER in differ:
                raise InvalidArgument(f"they are of another optimizer, {then.hyperparameters.get(OPTIMIZER)}")
            learner.set_optimizer_states(OptimizerStates.load(found.folder / states_name(then.epoch, number)))
        except InvalidArgument as error:
            if not differ:
                raise
            if leads:
                logger.warning("%s: the optimizer's states begin anew: %s", found.folder, error)
    told.put_back(then.hyperparameters, then.changed)


def restore_own(
    found: Found,
    state: dict[str, Any] | None,
    shape: tuple[int, int],
    told: Hyperparameters,
    parts: tuple[Trainable, Any, Any, Sequence[Any]],
    rank: int,
) -> None:
    """Go on with this worker's part, if it fits; `parts` are module, iterator, metric and callbacks."""
    then, folder = found.manifest, found.folder
    if state is None:
        if (then.num_workers, then.num_devices) != shape:
            was = f"{then.num_workers} workers of {then.num_devices} devices"
            now = f"there are {shape[0]} of {shape[1]} now"
        else:
            was = f"batches of {then.hyperparameters.get(BATCH_SIZE)}"
            now = f"they are of {told.given[BATCH_SIZE]} now"
        logger.warning(
            "%s was taken with %s, %s: parameters and optimizer states go on, from the beginning of epoch "
            "%d; the order of the data and random numbers do not, so the result will differ in its bits",
            folder, was, now, then.epoch,
        )  # fmt: skip
        return
    differ = differing(then.fingerprint, fingerprint_here())
    if differ:
        logger.warning("%s: the result may differ in its bits: %s", folder, "; ".join(differ.values()))
    restore_worker(state, *parts, str(folder / worker_name(rank)))
    if rank == 0:
        logger.info(
            "Resumed from %s: epoch %d, batch %d, after %d updates",
            folder, then.epoch, then.nbatch, then.step,
        )  # fmt: skip


@cache
def fingerprint_here() -> Mapping[str, str]:
    """That of this process: what computes does not change while it runs."""
    return fingerprint(settings())
