"""``mx.random``: the seed, and the functions of ``mx.nd.random``.

Dropout and other random operators of networks have streams of their own, which `seed` restarts too.
NumPy's generator, by which `NDArrayIter` shuffles, is seeded by ``numpy.random.seed``.
"""

from __future__ import annotations

from dmod.context import Context
from dmod.device import random as streams
from dmod.ndarray.random import (
    exponential,
    gamma,
    generalized_negative_binomial,
    multinomial,
    negative_binomial,
    normal,
    poisson,
    randint,
    randn,
    shuffle,
    uniform,
)

__all__ = [
    "exponential",
    "gamma",
    "generalized_negative_binomial",
    "multinomial",
    "negative_binomial",
    "normal",
    "poisson",
    "randint",
    "randn",
    "seed",
    "shuffle",
    "uniform",
]


def seed(seed_state: int, ctx: str | Context = "all") -> None:
    """Restart all random streams of this process.

    Parameters
    ----------
    seed_state : int
    ctx : 'all' or Context
        Accepted for MXNet's sake; a device has no seed of its own here.

    Examples
    --------
    >>> seed(7)
    >>> first = uniform(shape=3).asnumpy()
    >>> seed(7)
    >>> (uniform(shape=3).asnumpy() == first).all()
    np.True_
    """
    streams.seed(seed_state)
