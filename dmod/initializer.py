"""``mx.init``: first values of parameters, by rules for their names.

An initializer is called with a parameter's name and its array. A name that ends in ``weight`` gets the
initializer's own values; biases get zeros, gammas ones, and so on; a variable's ``init=`` argument, kept as
JSON in its ``__init__`` attribute, goes before all rules. Draws come from ``mx.random``'s generator.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device.random import host_generator
from dmod.log import logger, show_progress
from dmod.ndarray import NDArray, array, load
from dmod.ops.rnn_layout import packed_gates, packed_input_size
from dmod.registry import Registry

__all__ = [
    "Bilinear",
    "Constant",
    "FusedRNN",
    "InitDesc",
    "Initializer",
    "LSTMBias",
    "Load",
    "MSRAPrelu",
    "Mixed",
    "Normal",
    "One",
    "Orthogonal",
    "Uniform",
    "Xavier",
    "Zero",
    "create",
    "register",
]

_registry = Registry("initializer")


class NoRuleError(InvalidArgument):
    """An initializer does not know what to do with a parameter of such a name."""


class InitDesc(str):
    """A parameter's name with the attributes of its variable.

    Parameters
    ----------
    name : str
    attrs : dict of str to str, optional
        ``__init__`` among them goes before all rules.
    global_init : Initializer, optional
        What an initializer made from ``__init__`` may fall back on.
    """

    attrs: dict[str, str]
    global_init: Initializer | None

    def __new__(
        cls, name: str, attrs: Mapping[str, str] | None = None, global_init: Initializer | None = None
    ) -> InitDesc:
        self = super().__new__(cls, name)
        self.attrs = dict(attrs or {})
        self.global_init = global_init
        return self


def register(klass: type[Initializer]) -> type[Initializer]:
    """Register an initializer under its class name, so that JSON can name it; usable as a decorator.

    Examples
    --------
    >>> @register
    ... class Half(Initializer):
    ...     def _init_weight(self, name, arr):
    ...         arr[:] = 0.5
    >>> Half().dumps()
    '["half", {}]'
    """
    _registry.register(klass)
    return klass


def create(initializer: Any, **kwargs: Any) -> Any:
    """Make an initializer.

    Parameters
    ----------
    initializer : str, or an initializer
        A registered name, whatever its case, or the JSON of `Initializer.dumps`; an initializer is returned
        as it is.
    **kwargs
        For the initializer.

    Raises
    ------
    InvalidArgument
        Nothing is registered under the name; the message offers near ones.
    """
    if not isinstance(initializer, str):
        if not callable(initializer):
            raise InvalidArgument(f"initializer {initializer!r}: expected a name or an initializer")
        return initializer
    if initializer[:1] != "[":
        return _registry.get(initializer)(**kwargs)
    try:
        name, options = json.loads(initializer)
        return _registry.get(name)(**{**options, **kwargs})
    except InvalidArgument:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f'initializer {initializer}: expected JSON like ["zero", {{}}]: {error}'
        ) from None


class Initializer:
    """Base of all initializers; one of one's own defines ``_init_weight(name, arr)``.

    Parameters
    ----------
    **kwargs
        Kept for `dumps`.
    """

    def __init__(self, **kwargs: Any):
        self._kwargs = kwargs
        self._verbose = False
        self._print_func: Callable[[NDArray], str] = _mean_size

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._kwargs == other._kwargs

    __hash__ = object.__hash__

    def set_verbosity(
        self, verbose: bool = False, print_func: Callable[[NDArray], str] | None = None
    ) -> Initializer:
        """Log what is initialized, and what `print_func` (default: the root mean square) says of it."""
        self._verbose = verbose
        if print_func is not None:
            self._print_func = print_func
        return self

    def dumps(self) -> str:
        """Name and arguments as JSON, as it stands in a variable's ``__init__`` attribute.

        Examples
        --------
        >>> Normal(0.5).dumps()
        '["normal", {"sigma": 0.5}]'
        """
        return json.dumps([type(self).__name__.lower(), self._kwargs])

    def __call__(self, desc: str, arr: NDArray) -> None:
        """Set the first values of a parameter.

        Parameters
        ----------
        desc : InitDesc or str
            The parameter's name.
        arr : NDArray
            The parameter, changed in place.

        Raises
        ------
        InvalidArgument
            No rule is for such a name.
        """
        if not isinstance(desc, str):
            raise TypeError(f"initializer: expected a parameter's name, got {type(desc).__name__}")
        if not isinstance(desc, InitDesc):
            desc = InitDesc(desc)
        if desc.global_init is None:
            desc.global_init = self
        own = desc.attrs.get("__init__")
        if own:
            create(own)._init_weight(desc, arr)
            self._report(desc, own, arr)
            return
        for endings, method in self._rules():
            if desc.endswith(endings):
                method(desc, arr)
                self._report(desc, endings[0].lstrip("_"), arr)
                return
        self._init_default(desc, arr)

    def _rules(self) -> list[tuple[tuple[str, ...], Callable[[str, NDArray], None]]]:
        """Endings of names, and what initializes such parameters; the first that fits counts."""
        return [
            (("weight",), self._init_weight),
            (("bias",), self._init_bias),
            (("gamma",), self._init_gamma),
            (("beta",), self._init_beta),
            (("moving_mean", "running_mean", "moving_avg", "moving_inv_var", "min"), self._init_zero),
            (("moving_var", "running_var", "max"), self._init_one),
        ]

    def _report(self, desc: str, rule: str, arr: NDArray) -> None:
        if self._verbose:
            show_progress()
            logger.info("Initialized %s as %s: %s", desc, rule, self._print_func(arr))

    # A subclass may override each of these, as in MXNet.

    def _init_weight(self, name: str, arr: NDArray) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define _init_weight(name, arr)")

    def _init_zero(self, name: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_one(self, name: str, arr: NDArray) -> None:
        arr[:] = 1.0

    def _init_bias(self, name: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_gamma(self, name: str, arr: NDArray) -> None:
        arr[:] = 1.0

    def _init_beta(self, name: str, arr: NDArray) -> None:
        arr[:] = 0.0

    def _init_default(self, name: str, arr: NDArray) -> None:
        raise NoRuleError(
            f"parameter {str(name)!r}: no rule for its name. Names end in weight, bias, gamma, beta, "
            "moving_mean or moving_var; others need their own: mx.sym.Variable(..., init=mx.init.Zero())"
        )


def _mean_size(arr: NDArray) -> str:
    return str(np.sqrt(np.mean(np.square(arr._data, dtype=np.float64))))


def _fill_uniform(arr: NDArray, scale: float) -> None:
    """Numbers in ``[-scale, scale)``."""
    wide = np.float64 if arr.dtype == np.float64 else np.float32
    values = host_generator().random(arr.shape, dtype=wide)
    arr[:] = (values - wide(0.5)) * wide(2 * scale)


def _fill_normal(arr: NDArray, sigma: float) -> None:
    wide = np.float64 if arr.dtype == np.float64 else np.float32
    arr[:] = host_generator().standard_normal(arr.shape, dtype=wide) * wide(sigma)


@register
class Zero(Initializer):
    """Zeros for weights; also by the name 'zeros'."""

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 0


@register
class One(Initializer):
    """Ones for weights; also by the name 'ones'."""

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 1


_registry.register(Zero, "zeros")
_registry.register(One, "ones")


@register
class Constant(Initializer):
    """One value for weights.

    Parameters
    ----------
    value : float, or an array of the parameter's shape
    """

    def __init__(self, value: Any):
        plain = value.tolist() if isinstance(value, (NDArray, np.ndarray, np.generic)) else value
        super().__init__(value=plain)
        self.value = value

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = np.asarray(self.value) if isinstance(self.value, (list, tuple)) else self.value


@register
class Uniform(Initializer):
    """Uniform numbers for weights.

    Parameters
    ----------
    scale : float
        They lie in ``[-scale, scale)``.
    """

    def __init__(self, scale: float = 0.07):
        super().__init__(scale=scale)
        self.scale = scale

    def _init_weight(self, name: str, arr: NDArray) -> None:
        _fill_uniform(arr, self.scale)


@register
class Normal(Initializer):
    """Normal numbers of mean 0 for weights.

    Parameters
    ----------
    sigma : float
        Their standard deviation.
    """

    def __init__(self, sigma: float = 0.01):
        super().__init__(sigma=sigma)
        self.sigma = sigma

    def _init_weight(self, name: str, arr: NDArray) -> None:
        _fill_normal(arr, self.sigma)


@register
class Orthogonal(Initializer):
    """An orthogonal matrix for weights (Saxe, McClelland and Ganguli, 2013).

    Parameters
    ----------
    scale : float
        A factor.
    rand_type : {'uniform', 'normal'}
        What the matrix is made from.
    """

    def __init__(self, scale: float = 1.414, rand_type: str = "uniform"):
        super().__init__(scale=scale, rand_type=rand_type)
        if rand_type not in ("uniform", "normal"):
            raise InvalidArgument(f"Orthogonal: rand_type={rand_type!r}, expected 'uniform' or 'normal'")
        self.scale = scale
        self.rand_type = rand_type

    def _init_weight(self, name: str, arr: NDArray) -> None:
        shape = (arr.shape[0], math.prod(arr.shape[1:]))
        generator = host_generator()
        start = (
            generator.uniform(-1, 1, shape) if self.rand_type == "uniform" else generator.normal(0, 1, shape)
        )
        left, _, right = np.linalg.svd(start, full_matrices=False)
        matrix = left if left.shape == shape else right
        arr[:] = (self.scale * matrix).reshape(arr.shape)


@register
class Xavier(Initializer):
    """Weights whose size follows from the layer's (Glorot and Bengio, 2010).

    Their scale is ``sqrt(magnitude / factor)``.

    Parameters
    ----------
    rnd_type : {'uniform', 'gaussian'}
        Uniform in ``[-scale, scale)``, or normal of standard deviation ``scale``.
    factor_type : {'avg', 'in', 'out'}
        The factor is the number of inputs of each unit, of outputs, or their mean.
    magnitude : float
    """

    def __init__(self, rnd_type: str = "uniform", factor_type: str = "avg", magnitude: float = 3):
        super().__init__(rnd_type=rnd_type, factor_type=factor_type, magnitude=magnitude)
        self.rnd_type = rnd_type
        self.factor_type = factor_type
        self.magnitude = float(magnitude)

    def _init_weight(self, name: str, arr: NDArray) -> None:
        if arr.ndim < 2:
            raise InvalidArgument(
                f"{type(self).__name__}: parameter {str(name)!r} of shape {arr.shape}, expected 2 axes"
            )
        area = math.prod(arr.shape[2:])
        fans: dict[str, float] = {"in": arr.shape[1] * area, "out": arr.shape[0] * area}
        fans["avg"] = (fans["in"] + fans["out"]) / 2.0
        if self.factor_type not in fans:
            raise InvalidArgument(f"Xavier: factor_type={self.factor_type!r}, expected 'avg', 'in' or 'out'")
        scale = math.sqrt(self.magnitude / fans[self.factor_type])
        if self.rnd_type == "uniform":
            _fill_uniform(arr, scale)
        elif self.rnd_type == "gaussian":
            _fill_normal(arr, scale)
        else:
            raise InvalidArgument(f"Xavier: rnd_type={self.rnd_type!r}, expected 'uniform' or 'gaussian'")


@register
class MSRAPrelu(Xavier):
    """Normal weights for layers before a PReLU (He, Zhang, Ren and Sun, 2015).

    Parameters
    ----------
    factor_type : {'avg', 'in', 'out'}
        See `Xavier`.
    slope : float
        The first slope of the PReLU; 0 for a ReLU.
    """

    def __init__(self, factor_type: str = "avg", slope: float = 0.25):
        super().__init__("gaussian", factor_type, 2.0 / (1 + slope**2))
        self._kwargs = {"factor_type": factor_type, "slope": slope}


@register
class Bilinear(Initializer):
    """The weights of a bilinear interpolation, for upsampling by a deconvolution."""

    def _init_weight(self, name: str, arr: NDArray) -> None:
        rows, columns = arr.shape[-2:]
        half = math.ceil(columns / 2.0)
        center = (2 * half - 1 - half % 2) / (2.0 * half)
        across = 1 - np.abs(np.arange(columns) / half - center)
        down = 1 - np.abs(np.arange(rows) / half - center)
        arr[:] = np.broadcast_to(np.outer(down, across), arr.shape)


@register
class LSTMBias(Initializer):
    """The bias of an LSTM cell: zeros, but for the forget gate.

    Parameters
    ----------
    forget_bias : float
        The bias of the forget gate (Jozefowicz, Zaremba and Sutskever, 2015).
    """

    def __init__(self, forget_bias: float = 1.0):
        super().__init__(forget_bias=forget_bias)
        self.forget_bias = forget_bias

    def _init_weight(self, name: str, arr: NDArray) -> None:
        arr[:] = 0.0
        quarter = arr.shape[0] // 4  # the gates lie in the order input, forget, candidate, output
        arr[quarter : 2 * quarter] = self.forget_bias


@register
class FusedRNN(Initializer):
    """The packed weights of an `mx.rnn.FusedRNNCell`, each gate's by another initializer.

    That one sees the gates under names such as ``l0_i2h_f_weight``.

    Parameters
    ----------
    init : Initializer, str or None
        For weights and biases; by default the one that initializes all other parameters.
    num_hidden, num_layers, mode, bidirectional
        As for the cell.
    forget_bias : float
        Both biases of an LSTM's forget gates.
    """

    def __init__(
        self,
        init: Any,
        num_hidden: int,
        num_layers: int,
        mode: str,
        bidirectional: bool = False,
        forget_bias: float = 1.0,
    ):
        init = None if init is None else create(init)
        super().__init__(
            init=None if init is None else init.dumps(),
            num_hidden=num_hidden,
            num_layers=num_layers,
            mode=mode,
            bidirectional=bidirectional,
            forget_bias=forget_bias,
        )
        self._init = init
        self._network = (mode, num_layers, bidirectional)
        self._num_hidden = num_hidden
        self._forget_bias = forget_bias

    def _init_weight(self, name: str, arr: NDArray) -> None:
        global_init = getattr(name, "global_init", None)
        init = global_init if self._init is None else self._init
        if init is None:
            raise InvalidArgument(f"FusedRNN: parameter {str(name)!r} has no initializer; give FusedRNN one")
        width = packed_input_size(*self._network, arr.size, self._num_hidden)
        for gate, start, shape in packed_gates(*self._network, width, self._num_hidden):
            part = arr[start : start + math.prod(shape)].reshape(shape)
            if self._network[0] == "lstm" and gate.endswith("_f_bias"):
                part[:] = self._forget_bias
            else:
                init(InitDesc(gate, global_init=global_init), part)


class Mixed:
    """Initializers by patterns of names; the first that matches counts.

    Parameters
    ----------
    patterns : list of str
        Regular expressions, matched from the beginning of a name.
    initializers : list of Initializer
    """

    def __init__(self, patterns: Sequence[str], initializers: Sequence[Any]):
        if len(patterns) != len(initializers):
            raise InvalidArgument(f"Mixed: {len(patterns)} patterns, {len(initializers)} initializers")
        self.map = [(re.compile(p), create(i)) for p, i in zip(patterns, initializers, strict=True)]

    def __call__(self, name: str, arr: NDArray) -> None:
        """Set the first values of the parameter `name`."""
        for pattern, initializer in self.map:
            if pattern.match(name):
                initializer(name, arr)
                return
        raise InvalidArgument(
            f"Mixed: no pattern matches parameter {str(name)!r}; add '.*' at the end, with a default"
        )


class Load:
    """Values from a file or a dict.

    Parameters
    ----------
    param : str or dict of str to NDArray
        A ``.params`` file, or arrays by name, with or without ``arg:`` and ``aux:``.
    default_init : callable, optional
        For parameters that are not there.
    verbose : bool
        Log where each parameter comes from.
    """

    def __init__(self, param: Any, default_init: Any = None, verbose: bool = False):
        arrays = load(param) if isinstance(param, str) else param
        if not isinstance(arrays, Mapping):
            raise InvalidArgument("Load: the arrays have no names")
        self.param = {re.sub("^(arg|aux):", "", name): value for name, value in arrays.items()}
        self.default_init = None if default_init is None else create(default_init)
        self.verbose = verbose

    def __call__(self, name: str, arr: NDArray) -> None:
        """Set the first values of the parameter `name`."""
        if name in self.param:
            value = self.param[name]
            value = value if isinstance(value, NDArray) else array(value)
            if value.shape != arr.shape:
                raise InvalidArgument(
                    f"Load: parameter {str(name)!r} has shape {arr.shape}, loaded {value.shape}"
                )
            arr[:] = value
        elif self.default_init is not None:
            self.default_init(name, arr)
        else:
            raise InvalidArgument(
                f"Load: parameter {str(name)!r} was not loaded, and there is no default_init"
            )
        if self.verbose:
            show_progress()
            logger.info("Initialized %s by %s", name, "loading" if name in self.param else "default")
