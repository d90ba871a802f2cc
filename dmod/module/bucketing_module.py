"""`BucketingModule`: one network per input length, all with the same parameters.

Each bucket is a `Module` of its own. They share the default bucket's parameter set, memory to work in and
optimizer; this file only chooses whose turn it is. Values of parameters always go through the default
bucket, whose symbol must therefore have all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument, NotReadyError
from dmod.checkpoint import load_params
from dmod.context import Context
from dmod.initializer import Uniform
from dmod.log import logger as dmod_logger
from dmod.module.base_module import BaseModule
from dmod.module.module import Module
from dmod.ndarray import NDArray, array, load, save
from dmod.symbol import Symbol

__all__ = ["BucketingModule"]

SymGen = Callable[[Any], tuple[Symbol, Sequence[str] | None, Sequence[str] | None]]


class BucketingModule(BaseModule):
    """A module for inputs of varying length: batches say by their `bucket_key` which network they need.

    Buckets share parameters, memory and optimizer; outputs are those of the last forward pass, whichever
    bucket it was in. In a step, the parameters that its bucket does not use
    have gradients of zero; the optimizer's momentum and weight decay still act on them. So workers of a
    'dist' store may use different buckets in the same step and stay equal. (MXNet leaves such parameters
    out of the step altogether.)

    Parameters
    ----------
    sym_gen : callable
        ``sym_gen(bucket_key)`` returns ``(symbol, data_names, label_names)``.
    default_bucket_key : object
        The bucket whose network has all parameters, and best also the largest one.
    logger : logging.Logger
    context, work_load_list, fixed_param_names, state_names, group2ctxs, compression_params
        As in `Module`.

    Examples
    --------
    >>> import dmod as mx
    >>> def sym_gen(length):
    ...     steps = mx.sym.split(mx.sym.Variable('data'), num_outputs=length, axis=1)
    ...     shared = mx.sym.Variable('fc_weight')
    ...     made = [mx.sym.FullyConnected(steps[i], shared, num_hidden=2, no_bias=True, name=f'fc{i}')
    ...             for i in range(length)]
    ...     return mx.sym.add_n(*made), ['data'], None
    >>> mod = mx.mod.BucketingModule(sym_gen, default_bucket_key=4)
    >>> mod.bind([('data', (1, 4))], for_training=False)
    >>> mod.init_params(mx.init.One())
    >>> for length in (4, 2):
    ...     mod.forward(mx.io.DataBatch([mx.nd.ones((1, length))], bucket_key=length,
    ...                                 provide_data=[('data', (1, length))]))
    ...     print(mod.get_outputs()[0].asnumpy())
    [[4. 4.]]
    [[2. 2.]]
    """

    def __init__(
        self,
        sym_gen: SymGen,
        default_bucket_key: Any = None,
        logger: Any = dmod_logger,
        context: Context | Sequence[Context] | None = None,
        work_load_list: Sequence[float] | None = None,
        fixed_param_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        group2ctxs: Any = None,
        compression_params: Any = None,
    ):
        super().__init__(logger)
        if not callable(sym_gen):
            raise InvalidArgument(f"BucketingModule: sym_gen is {sym_gen!r}, expected a function")
        if default_bucket_key is None:
            raise InvalidArgument("BucketingModule: default_bucket_key is missing")
        self._sym_gen = sym_gen
        self._default_key = default_bucket_key
        self._fixed, self._states = list(fixed_param_names or ()), list(state_names or ())
        self._arguments = {
            "logger": logger,
            "context": context,
            "work_load_list": work_load_list,
            "group2ctxs": group2ctxs,
            "compression_params": compression_params,
        }
        self._buckets: dict[Any, Module] = {}
        self._current: Module | None = None
        self._current_key: Any = None
        self._grad_req: Any = "write"
        self._monitors: list[Any] = []
        self._default = self._make(default_bucket_key)  # wrong names are reported now

    # ---- buckets

    def _make(self, key: Any) -> Module:
        """A module for a bucket, unbound."""
        try:
            made = self._sym_gen(key)
        except LookupError as error:
            raise InvalidArgument(f"sym_gen knows no bucket {key!r}: {error!r}") from error
        if not isinstance(made, (tuple, list)) or len(made) != 3:
            raise InvalidArgument(
                f"sym_gen({key!r}) returned {type(made).__name__}, expected (symbol, data_names, label_names)"
            )
        symbol, data_names, label_names = made
        if not isinstance(symbol, Symbol):
            raise InvalidArgument(f"sym_gen({key!r}): expected a Symbol, got {type(symbol).__name__}")
        arguments = set(symbol.list_arguments())
        default = key == self._default_key
        return Module(
            symbol,
            data_names,
            label_names,
            # a bucket may lack a fixed parameter; the default one may not
            fixed_param_names=[n for n in self._fixed if default or n in arguments],
            state_names=self._states,
            **self._arguments,
        )

    def switch_bucket(self, bucket_key: Any, data_shapes: Any, label_shapes: Any = None) -> None:
        """Go on with another bucket, which is bound when it is first used.

        Parameters
        ----------
        bucket_key : object
        data_shapes, label_shapes : list of DataDesc, or of (name, shape)

        Raises
        ------
        InvalidArgument
            The bucket's network has parameters that the default bucket's lacks, or in other shapes.
        """
        self._need("switch_bucket", params=False)
        module = self._buckets.get(bucket_key)
        if module is None:
            module = self._make(bucket_key)
            try:
                module.bind(
                    data_shapes,
                    label_shapes,
                    self.for_training,
                    self.inputs_need_grad,
                    shared_module=self._default,
                    grad_req=self._grad_req,
                )
            except InvalidArgument as error:
                raise InvalidArgument(f"bucket {bucket_key!r}: {error}") from error
            for monitor in self._monitors:
                module.install_monitor(monitor)
            self._buckets[bucket_key] = module
        self._current, self._current_key = module, bucket_key

    def _now(self, call: str) -> Module:
        """The bucket whose turn it is."""
        if self._current is None:
            raise NotReadyError(f"{call}: call bind() first")
        return self._current

    def _turn_to(self, call: str, batch: Any) -> None:
        """Switch to a batch's bucket."""
        key = getattr(batch, "bucket_key", None)
        shapes = getattr(batch, "provide_data", None)
        if key is None or not shapes:
            raise InvalidArgument(
                f"{call}: the batch has no {'provide_data' if key is not None else 'bucket_key'}; "
                "a BucketingModule takes its network from it"
            )
        self.switch_bucket(key, shapes, getattr(batch, "provide_label", None))

    # ---- names and shapes

    @property
    def symbol(self) -> Symbol:
        """The symbol of the current bucket."""
        return self._now("symbol").symbol

    @property
    def data_names(self) -> list[str]:
        """The names of the current bucket's data; before `bind` those of the default one."""
        return (self._current or self._default).data_names

    @property
    def output_names(self) -> list[str]:
        """The names of the current bucket's outputs; before `bind` those of the default one."""
        return (self._current or self._default).output_names

    @property
    def data_shapes(self) -> Any:
        """Names and shapes of the current bucket's data."""
        return self._now("data_shapes").data_shapes

    @property
    def label_shapes(self) -> Any:
        """Names and shapes of the current bucket's labels; None without labels."""
        return self._now("label_shapes").label_shapes

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the current bucket's outputs."""
        return self._now("output_shapes").output_shapes

    # ---- setting up

    def bind(
        self,
        data_shapes: Any,
        label_shapes: Any = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Any = None,
        grad_req: Any = "write",
    ) -> None:
        """Bind the default bucket; the others are bound when they are first used.

        Parameters
        ----------
        data_shapes, label_shapes : list of DataDesc, or of (name, shape)
            For the default bucket.
        for_training, inputs_need_grad, force_rebind, grad_req
            As in `Module.bind`, for all buckets. `grad_req` must be one word, as buckets have arguments
            of their own.
        shared_module : None
            Not supported.
        """
        if shared_module is not None:
            raise InvalidArgument("bind: a BucketingModule cannot share another module's parameters")
        if not isinstance(grad_req, str):
            raise InvalidArgument(f"bind: grad_req is {grad_req!r}; buckets need one word for all")
        if self.binded and not force_rebind:
            self.logger.warning("bind: already bound, nothing done; use force_rebind=True to bind again")
            return
        default = self._default
        default._devices.share_heads()
        default.bind(
            data_shapes, label_shapes, for_training, inputs_need_grad, force_rebind, grad_req=grad_req
        )
        self._buckets = {self._default_key: default}
        self._current, self._current_key = default, self._default_key
        self._grad_req = grad_req
        self.for_training, self.inputs_need_grad, self.binded = for_training, inputs_need_grad, True
        self.params_initialized = default.params_initialized
        self.optimizer_initialized = default.optimizer_initialized
        default.reserve_memory()

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer and a store for all buckets; see `Module.init_optimizer`."""
        self._need("init_optimizer")
        self._default.init_optimizer(kvstore, optimizer, optimizer_params, force_init)
        for module in self._buckets.values():
            if module is not self._default:
                module.borrow_optimizer(self._default)
        self.optimizer_initialized = True

    # ---- parameters

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008  (it has no state)
        arg_params: dict[str, NDArray] | None = None,
        aux_params: dict[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Initialise the parameters of all buckets; see `BaseModule.init_params`."""
        self._need("init_params", params=False)
        self._default.init_params(initializer, arg_params, aux_params, allow_missing, force_init, allow_extra)
        for module in self._buckets.values():
            module.params_initialized = True
        self.params_initialized = True

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """``(arg_params, aux_params)`` on the CPU, of all buckets."""
        self._need("get_params")
        return self._default.get_params()

    def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """The arrays of the current bucket's state inputs."""
        self._need("get_states")
        return self._now("get_states").get_states(merge_multi_context)

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the current bucket's state inputs; see `Module.set_states`."""
        self._need("set_states")
        self._now("set_states").set_states(states, value)

    # ---- computation

    def prepare(self, data_batch: Any, sparse_row_id_fn: Callable[..., Any] | None = None) -> None:
        """Bind the bucket of a batch that comes later; the current bucket stays."""
        self._need("prepare")
        current, key = self._current, self._current_key
        self._turn_to("prepare", data_batch)
        self._now("prepare").prepare(data_batch, sparse_row_id_fn)
        self._current, self._current_key = current, key

    def _can_copy_ahead(self) -> bool:
        own = (type(self).forward_backward, type(self).forward, type(self).prepare) == _OWN_READERS
        return own and all(module._can_copy_ahead() for module in self._buckets.values())

    def _want_ahead(self, wanted: bool) -> bool:
        return self._default._want_ahead(wanted)

    def _stage(self, batch: Any) -> None:
        module = self._buckets.get(getattr(batch, "bucket_key", None))
        if module is not None:
            module._stage(batch)

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Switch to the batch's bucket and compute its outputs."""
        self._need("forward")
        self._turn_to("forward", data_batch)
        self._now("forward").forward(data_batch, is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients for the current bucket; those of parameters it does not use are zero."""
        self._need("backward")
        self._now("backward").backward(out_grads)
        self._default.mark_changed()

    def update(self) -> None:
        """Update the parameters of all buckets; see `Module.update`."""
        self._need("update", optimizer=True)
        self._default.mark_changed()
        self._now("update").update()

    @property
    def learners(self) -> list[Module]:
        """The default bucket's module, whose parameters and optimizer all buckets share."""
        return [self._default]

    def _undo_step(self) -> None:
        self._default._undo_step()

    def _end_epoch(self) -> None:
        self._default._end_epoch()

    def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """The outputs of the last `forward`."""
        self._need("get_outputs")
        return self._now("get_outputs").get_outputs(merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """The gradients of the data from the last `backward`."""
        self._need("get_input_grads")
        return self._now("get_input_grads").get_input_grads(merge_multi_context)

    def update_metric(self, eval_metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Feed a metric with the outputs of the last `forward` and the labels."""
        self._need("update_metric")
        self._now("update_metric").update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Let a monitor watch all buckets, also those that come later."""
        self._need("install_monitor", params=False)
        self._monitors.append(mon)
        for module in self._buckets.values():
            module.install_monitor(mon)

    # ---- files

    def save_checkpoint(self, prefix: str, epoch: int, remove_amp_cast: bool = False) -> None:
        """Write the parameters, and each bucket's symbol to ``prefix-KEY-symbol.json``.

        ``prefix.buckets`` lists the keys if they are integers. MXNet reads these files.
        """
        self._need("save_checkpoint")
        for key, module in self._buckets.items():
            module.symbol.save(f"{prefix}-{key}-symbol.json")
        self.save_params(f"{prefix}-{epoch:04d}.params")
        if all(isinstance(key, (int, np.integer)) for key in self._buckets):
            save(f"{prefix}.buckets", [array(list(self._buckets), dtype="int32")])

    def save_optimizer_states(self, fname: str) -> None:
        """Write the optimizer's states; see `Module.save_optimizer_states`."""
        self._need("save_optimizer_states", optimizer=True)
        self._default.save_optimizer_states(fname)

    def load_optimizer_states(self, fname: str) -> None:
        """Read the optimizer's states; see `Module.load_optimizer_states`."""
        self._need("load_optimizer_states", optimizer=True)
        self._default.load_optimizer_states(fname)

    @staticmethod
    def load(
        prefix: str, epoch: int, sym_gen: SymGen | None = None, default_bucket_key: Any = None, **kwargs: Any
    ) -> BucketingModule:
        """A module from what `save_checkpoint` wrote; `bind` comes next.

        Parameters
        ----------
        prefix : str
        epoch : int
        sym_gen : callable
            The one that the module was saved with.
        default_bucket_key : object, optional
            Default: the first key in ``prefix.buckets``, which is the default bucket's.
        **kwargs
            Arguments of `BucketingModule`.
        """
        if sym_gen is None:
            raise InvalidArgument("BucketingModule.load: sym_gen is missing")
        if default_bucket_key is None:
            listed = load(f"{prefix}.buckets")
            keys = listed[0].asnumpy() if isinstance(listed, list) and listed else np.empty(0)
            if not keys.size:
                raise FormatError(f"{prefix}.buckets: expected an array of bucket keys")
            default_bucket_key = int(keys[0])
        module = BucketingModule(sym_gen, default_bucket_key, **kwargs)
        module._take(*load_params(prefix, epoch))
        return module

    @staticmethod
    def load_dict(
        sym_dict: Mapping[Any, Symbol] | None = None,
        sym_gen: SymGen | None = None,
        default_bucket_key: Any = None,
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        **kwargs: Any,
    ) -> BucketingModule:
        """A module from parameters in memory; `bind` comes next.

        Parameters
        ----------
        sym_dict : dict of bucket key to Symbol, optional
            Symbols that are used instead of those that `sym_gen` makes.
        sym_gen : callable
            Gives the names of data and labels, and the other buckets' symbols.
        default_bucket_key : object
        arg_params, aux_params : dict of str to NDArray
        **kwargs
            Arguments of `BucketingModule`.
        """
        if sym_gen is None or arg_params is None:
            missing = "sym_gen" if sym_gen is None else "arg_params"
            raise InvalidArgument(f"BucketingModule.load_dict: {missing} is missing")
        known = dict(sym_dict or {})

        def generate(key: Any) -> tuple[Symbol, Sequence[str] | None, Sequence[str] | None]:
            symbol, data_names, label_names = sym_gen(key)
            return known.get(key, symbol), data_names, label_names

        module = BucketingModule(generate, default_bucket_key, **kwargs)
        module._take(arg_params, aux_params or {})
        return module

    def _take(self, arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray]) -> None:
        """Keep loaded parameters for `bind`."""
        self._default.take_params(arg_params, aux_params)
        self.params_initialized = True


_OWN_READERS = (BucketingModule.forward_backward, BucketingModule.forward, BucketingModule.prepare)
"""What reads a batch before it is computed, unless a subclass has methods of its own."""
