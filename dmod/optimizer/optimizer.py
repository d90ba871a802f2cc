"""The base of all optimizers: learning rates and weight decays per parameter, and a plain description.

An optimizer holds rules, not arrays: `Updater` keeps states per parameter, `FlatUpdater` for a whole
flat buffer. It can be described by a registered name and plain values, never by code, so that a server
can make the same one from a message that it does not have to trust.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import numpy as np

from dmod.base import InvalidArgument
from dmod.log import logger
from dmod.lr_scheduler import LRScheduler, NotSerializable, schedule_from_config
from dmod.ndarray.ndarray import NDArray
from dmod.registry import Registry, nearest

__all__ = ["NotSerializable", "Optimizer", "create", "from_config", "register"]

_registry = Registry("optimizer")


class Optimizer:
    """Base of all optimizers.

    Parameters
    ----------
    rescale_grad : float
        Gradients are multiplied by this first; often 1 / batch size.
    param_idx2name : dict of int to str, optional
        Names of the parameters, for multipliers by name.
    wd : float
        Weight decay: the factor of the L2 penalty's gradient.
    clip_gradient : float, optional
        Each rescaled gradient element is limited to ``[-clip_gradient, clip_gradient]``.
    learning_rate : float, optional
        Default: 0.01, or the schedule's own.
    lr_scheduler : LRScheduler, optional
        Gives the learning rate for each number of updates.
    sym : Symbol, optional
        Its variables' ``lr_mult`` and ``wd_mult`` attributes hold.
    begin_num_update : int
        How many updates came before; the schedule goes on from there.
    multi_precision : bool
        Keep float32 copies of float16 weights.
    param_dict : dict, optional
        Objects with ``lr_mult`` and ``wd_mult``, by index; they go before the multipliers by name.

    Notes
    -----
    Parameters whose names end in neither ``_weight`` nor ``_gamma`` have no weight decay, unless their
    ``wd_mult`` is set. Without `param_idx2name` all have it.
    """

    opt_registry: ClassVar[Registry] = _registry
    portable: ClassVar[bool] = False
    """Whether name and constructor arguments describe an instance, so that servers can run it. Not
    inherited: a subclass that computes something else must not pass for its base."""
    scratch_arrays: ClassVar[int] = 1
    """How many scratch arrays `step` asks for."""
    master_first: ClassVar[bool] = True
    """Whether the float32 copy of a float16 weight comes before the state, as in MXNet mostly."""
    flat: ClassVar[bool] = False
    """Whether `step` and `flat_states` are all there is to it, so that `FlatUpdater` can run it. Not
    inherited."""

    def __init__(
        self,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: LRScheduler | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
    ):
        name = type(self).__name__
        _check_number(name, "rescale_grad", rescale_grad)
        _check_number(name, "wd", wd)
        if clip_gradient is not None:
            _check_number(name, "clip_gradient", clip_gradient)
        if learning_rate is not None:
            _check_number(name, "learning_rate", learning_rate)
        if param_idx2name is not None and not isinstance(param_idx2name, Mapping):
            raise InvalidArgument(
                f"{name}: param_idx2name must be a dict of indices to names, got {param_idx2name!r}"
            )
        if lr_scheduler is not None and not callable(lr_scheduler):
            raise InvalidArgument(
                f"{name}: lr_scheduler is {lr_scheduler!r}, expected a schedule, such as "
                "mx.lr_scheduler.FactorScheduler(1000, 0.5)"
            )
        self.rescale_grad = rescale_grad
        self.wd = wd
        self.clip_gradient = clip_gradient
        self.multi_precision = multi_precision
        self.lr_scheduler = lr_scheduler
        self.lr: float | None = self._initial_rate(learning_rate)
        self.begin_num_update = begin_num_update
        self.num_update = begin_num_update
        self._index_update_count: dict[Any, int] = {}
        self.idx2name = dict(param_idx2name or {})
        self.param_dict = dict(param_dict or {})
        self.sym_info = (sym.attr_dict(), sym.list_arguments()) if sym is not None else ()
        self.set_lr_mult({})
        self.set_wd_mult({})

    def _initial_rate(self, learning_rate: float | None) -> float | None:
        """The constant rate; with a schedule, an explicit one also becomes the schedule's base."""
        if self.lr_scheduler is None:
            return 0.01 if learning_rate is None else learning_rate
        if learning_rate is not None and self.lr_scheduler.base_lr != learning_rate:
            logger.warning(
                "the schedule's base_lr=%s gives way to the optimizer's learning_rate=%s",
                self.lr_scheduler.base_lr,
                learning_rate,
            )
            self.lr_scheduler.base_lr = learning_rate
        return learning_rate

    # ---- registry

    @staticmethod
    def register(klass: type[Optimizer]) -> type[Optimizer]:
        """Register an optimizer under its class name; usable as a decorator."""
        _registry.register(klass)
        return klass

    @staticmethod
    def create_optimizer(name: str, **kwargs: Any) -> Optimizer:
        """Make the optimizer registered under `name`."""
        return create(name, **kwargs)

    # ---- what a subclass defines

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The state for one parameter before its first update: None, an NDArray, or a tuple of such."""
        return None

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """Update `weight` and `state` in place."""
        raise NotImplementedError(f"{type(self).__name__} does not define update(index, weight, grad, state)")

    def flat_states(self) -> int:
        """How many states of the weight's size there are per parameter."""
        raise NotImplementedError(f"{type(self).__name__} does not run on flat buffers")

    def begin_states(self, weight: np.ndarray, states: tuple[np.ndarray, ...]) -> None:
        """Fill states, which are zero, before the first update; most optimizers leave them so."""

    def step(
        self,
        weight: np.ndarray,
        grad: np.ndarray,
        states: tuple[np.ndarray, ...],
        lr: float,
        wd: float,
        scratch: tuple[np.ndarray, ...],
        t: int,
    ) -> None:
        """Update `weight` and `states` in place: one-dimensional arrays, element by element.

        It must compute every element from that element alone, so that the result does not depend on how
        a buffer is cut, and allocate nothing.

        Parameters
        ----------
        weight, grad : ndarray, shape (n,)
        states : tuple of `flat_states` ndarrays, shape (n,)
        lr, wd : float
            With multipliers.
        scratch : tuple of `scratch_arrays` ndarrays, shape (n,)
            Of the weight's dtype, but at least float32; with any content.
        t : int
            The number of this update, from 1 (or ``begin_num_update + 1``).
        """
        raise NotImplementedError(f"{type(self).__name__} does not run on flat buffers")

    # ---- float16 weights with a float32 copy

    def create_state_multi_precision(self, index: Any, weight: NDArray) -> Any:
        """Like `create_state`, with a float32 copy of a float16 weight if `multi_precision` is set."""
        if self.multi_precision and weight.dtype == np.float16:
            master = weight.astype(np.float32)
            return (master, self.create_state(index, master))
        if weight.dtype == np.float16:
            logger.warning(
                "%s accumulates in float16; multi_precision=True keeps float32 copies", type(self).__name__
            )
        return self.create_state(index, weight)

    def update_multi_precision(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """Like `update`, for a state of `create_state_multi_precision`."""
        if self.multi_precision and weight.dtype == np.float16:
            master, inner = state
            self.update(index, master, grad.astype(np.float32), inner)
            master.copyto(weight)
        else:
            self.update(index, weight, grad, state)

    # ---- learning rate and weight decay

    @property
    def learning_rate(self) -> float:
        """The learning rate now, before multipliers."""
        return self._rate_at(self.num_update)

    def _rate_at(self, num_update: int) -> float:
        # float(): a numpy scalar would make numpy compute in that scalar's dtype.
        rate = self.lr if self.lr_scheduler is None else self.lr_scheduler(num_update)
        return float(rate)  # type: ignore[arg-type]

    def set_learning_rate(self, lr: float) -> None:
        """Set a new constant learning rate.

        Raises
        ------
        UserWarning
            The optimizer has a schedule, which decides alone (an error in MXNet too).
        """
        if self.lr_scheduler is not None:
            raise UserWarning(
                "set_learning_rate: the optimizer has an lr_scheduler, which decides; set its base_lr instead"
            )
        _check_number(type(self).__name__, "lr", lr)
        self.lr = lr

    def set_lr_scale(self, args_lrscale: Any) -> None:
        """Withdrawn; use `set_lr_mult`."""
        raise DeprecationWarning("set_lr_scale: use set_lr_mult instead")

    def set_lr_mult(self, args_lr_mult: Mapping[Any, float]) -> None:
        """Set learning rate multipliers by name or index; those from the symbol's attributes stay."""
        self.lr_mult: dict[Any, float] = {**self._symbol_multipliers("__lr_mult__"), **args_lr_mult}

    def set_wd_mult(self, args_wd_mult: Mapping[Any, float]) -> None:
        """Set weight decay multipliers by name or index; these go before the symbol's and the rule."""
        by_rule = {n: 0.0 for n in self.idx2name.values() if not n.endswith(("_weight", "_gamma"))}
        self.wd_mult: dict[Any, float] = {
            **by_rule,
            **self._symbol_multipliers("__wd_mult__"),
            **args_wd_mult,
        }

    def _symbol_multipliers(self, attribute: str) -> dict[Any, float]:
        if not self.sym_info:
            return {}
        attributes, arguments = self.sym_info
        return {n: float(attributes[n][attribute]) for n in arguments if attribute in attributes.get(n, ())}

    def _multiplier(self, index: Any, which: str) -> float:
        if index in self.param_dict:
            return getattr(self.param_dict[index], which)
        table: dict[Any, float] = getattr(self, which)
        if index in table:
            return table[index]
        return table.get(self.idx2name[index], 1.0) if index in self.idx2name else 1.0

    def _get_lr(self, index: Any) -> float:
        """The learning rate of one parameter now."""
        return self._rate_at(self.num_update) * self._multiplier(index, "lr_mult")

    def _get_wd(self, index: Any) -> float:
        """The weight decay of one parameter."""
        return float(self.wd) * self._multiplier(index, "wd_mult")

    def _update_count(self, index: Any) -> None:
        """Count an update of one parameter; `num_update` is the highest count."""
        for one in index if isinstance(index, (list, tuple)) else (index,):
            count = self._index_update_count.get(one, self.begin_num_update) + 1
            self._index_update_count[one] = count
            self.num_update = max(self.num_update, count)

    # ---- copying

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "param_dict"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take over attributes; those of `param_dict`'s objects stay behind, as in MXNet."""
        self.__dict__.update(state)
        self.param_dict = {}

    # ---- description

    def to_config(self) -> dict[str, Any]:
        """Describe the optimizer by registered name and plain values that msgpack can carry.

        Raises
        ------
        NotSerializable
            The optimizer or its schedule is of a class of one's own, or a multiplier comes from an object.
        """
        name = type(self).__name__
        if (
            not type(self).__dict__.get("portable")
            or name not in _registry
            or _registry.get(name) is not type(self)
        ):
            raise NotSerializable(f"optimizer {name}: not one that other processes know")
        if self.param_dict:
            raise NotSerializable(f"optimizer {name}: param_dict holds objects")
        params = {}
        for argument in _constructor_arguments(type(self)):
            value = self.lr if argument == "learning_rate" else getattr(self, argument)
            if isinstance(value, np.generic):
                value = value.item()
            if not isinstance(value, bool | int | float | str | None):
                raise NotSerializable(f"optimizer {name}: {argument}={value!r} is not a plain value")
            params[argument] = value
        return {
            "name": name,
            "params": params,
            "lr_scheduler": None if self.lr_scheduler is None else self.lr_scheduler.to_config(),
            "lr_mult": [[key, float(value)] for key, value in self.lr_mult.items()],
            "wd_mult": [[key, float(value)] for key, value in self.wd_mult.items()],
            "idx2name": [[key, value] for key, value in self.idx2name.items()],
        }


_NOT_PLAIN = ("self", "param_idx2name", "lr_scheduler", "sym", "param_dict")


def _constructor_arguments(klass: type) -> Iterator[str]:
    """The names of a class's constructor arguments and of its bases', short of those that are objects."""
    for base in klass.__mro__:
        if "__init__" in base.__dict__ and base is not object:
            for name, parameter in inspect.signature(base.__dict__["__init__"]).parameters.items():
                if name not in _NOT_PLAIN and parameter.kind == parameter.POSITIONAL_OR_KEYWORD:
                    yield name


def _check_number(owner: str, argument: str, value: Any) -> None:
    try:
        float(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{owner}: {argument}={value!r}, expected a number") from None
    if isinstance(value, str):
        raise InvalidArgument(f"{owner}: {argument}={value!r}, expected a number")


def register(klass: type[Optimizer]) -> type[Optimizer]:
    """Register an optimizer of one's own under its class name; usable as a decorator.

    Examples
    --------
    >>> @register
    ... class Halver(Optimizer):
    ...     def update(self, index, weight, grad, state):
    ...         weight *= 0.5
    >>> type(create('halver')).__name__
    'Halver'
    """
    return Optimizer.register(klass)


def create(name: str | Optimizer, **kwargs: Any) -> Optimizer:
    """Make the optimizer registered under `name`, whatever its case; an optimizer is returned as it is.

    Raises
    ------
    InvalidArgument
        Nothing is registered under `name`, or the optimizer has no such parameter; the message offers near
        names.
    """
    if isinstance(name, Optimizer):
        if kwargs:
            raise InvalidArgument(
                f"create: {type(name).__name__} is made already, it takes no {', '.join(kwargs)}"
            )
        return name
    factory = _registry.get(name)
    try:
        return cast(Optimizer, factory(**kwargs))
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None or found[1] not in kwargs or not isinstance(factory, type):
            raise
        known = sorted(_constructor_arguments(factory))
        hint = nearest(found[1], known) or f"; known: {', '.join(known)}"
        raise InvalidArgument(f"optimizer {name!r}: no parameter {found[1]!r}{hint}") from None


def from_config(config: Any) -> Optimizer:
    """The optimizer that `Optimizer.to_config` described; makes registered, portable classes only.

    Raises
    ------
    InvalidArgument
        `config` does not describe one.
    """
    try:
        klass = cast(type[Optimizer], _registry.get(config["name"]))
        if not klass.__dict__.get("portable"):
            raise InvalidArgument(f"optimizer {config['name']!r} is not portable")
        params = {str(key): value for key, value in config["params"].items()}
        unknown = set(params) - set(_constructor_arguments(klass))
        if unknown:
            raise InvalidArgument(f"optimizer {config['name']!r} takes no {', '.join(sorted(unknown))}")
        schedule = config.get("lr_scheduler")
        optimizer: Optimizer = klass(
            **{**params, "learning_rate": None},
            lr_scheduler=None if schedule is None else schedule_from_config(schedule),
            param_idx2name={key: str(value) for key, value in config["idx2name"]},
        )
        # Set afterwards, for through the constructor it would become the schedule's base.
        optimizer.lr = params["learning_rate"]
        if optimizer.lr is not None or schedule is None:
            _check_number(config["name"], "learning_rate", optimizer.lr)
        optimizer.lr_mult = {key: float(value) for key, value in config["lr_mult"]}
        optimizer.wd_mult = {key: float(value) for key, value in config["wd_mult"]}
    except InvalidArgument:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"not an optimizer's description: {type(error).__name__}: {error}") from None
    return optimizer
