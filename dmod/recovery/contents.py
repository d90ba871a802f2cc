"""The job's part of a checkpoint, which worker 0 alone writes: network, weights, optimizer states, as files.

They are those of `Module.save_checkpoint`, so that `Module.load` reads them.
"""

from __future__ import annotations

from dmod.checkpoint import join_params
from dmod.ndarray.params_file import dump_arrays
from dmod.optimizer import OptimizerStates
from dmod.recovery.image import Content
from dmod.recovery.snapshot import Trainable
from dmod.symbol import Symbol

__all__ = ["MODEL", "contents_of", "states_name"]

MODEL = "model"
"""The prefix of the network's files, as `Module.load` takes it."""


def states_name(epoch: int, learner: int) -> str:
    """The file of optimizer states; those of the first learner are where `Module.load` finds them."""
    return f"{MODEL}-{epoch:04d}.states" + (f".{learner}" if learner else "")


def contents_of(module: Trainable, epoch: int) -> dict[str, Content]:
    """The files, by name; large parts are views of what the next update changes.

    Parameters
    ----------
    module : BaseModule
        With its optimizer.
    epoch : int
        What the files are named after.
    """
    contents: dict[str, Content] = {}
    if isinstance(module.symbol, Symbol):
        contents[f"{MODEL}-symbol.json"] = Content([module.symbol.tojson().encode()])
    params = join_params(*module.get_params())
    arrays = [p._stored() for p in params.values()]
    contents[f"{MODEL}-{epoch:04d}.params"] = Content([*dump_arrays(arrays, [*params])])
    for number, learner in enumerate(module.learners):
        states = learner.get_optimizer_states(copy=False)
        contents[states_name(epoch, number)] = Content([*states.chunks(checksum=False)], OptimizerStates.seal)
    return contents
