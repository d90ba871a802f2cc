"""The error tree.

Every error that dmod raises on purpose descends from `MXNetError`, so that ``except mx.base.MXNetError``
keeps catching what it caught under MXNet::

    MXNetError (RuntimeError)
    ├── InvalidArgument (ValueError)      a value that the caller passed cannot be used
    ├── NotReadyError                     a call that came before the call it depends on
    ├── GraphError (ValueError)           a symbol, or its JSON, that is malformed
    ├── NotImplementedForSymbol           a method that only arrays have
    ├── NotSupportedForSparseNDArray      a method that only dense arrays have
    ├── FormatError (ValueError)          a file that is corrupt, truncated or of another format
    └── KVStoreError
        ├── UnknownKeyError (LookupError) a key used before `init`
        ├── EpochEnded                    another worker ended the epoch; the round in flight was dropped
        └── ClusterError
            ├── PeerLostError             another process died, stopped answering or left
            ├── DeadlineError (TimeoutError)
            ├── ProtocolError             a peer sent what the protocol does not allow
            ├── JoinRefusedError          the scheduler did not admit this process
            └── RemoteError               an error raised at the other end, with its text
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "ClusterError",
    "DeadlineError",
    "EpochEnded",
    "FormatError",
    "GraphError",
    "InvalidArgument",
    "JoinRefusedError",
    "KVStoreError",
    "MXNetError",
    "NotImplementedForSymbol",
    "NotReadyError",
    "NotSupportedForSparseNDArray",
    "PeerLostError",
    "ProtocolError",
    "RemoteError",
    "UnknownKeyError",
    "integer_types",
    "mx_real_t",
    "numeric_types",
    "py_str",
    "string_types",
]

# What MXNet scripts ask types with.
string_types = (str,)
integer_types = (int, np.int32, np.int64)
numeric_types = (float, int, np.generic)
mx_real_t = np.float32


class MXNetError(RuntimeError):
    """The root of all errors that dmod raises on purpose."""


class InvalidArgument(MXNetError, ValueError):
    """A value that the caller passed cannot be used."""


class NotReadyError(MXNetError):
    """A call that came before the call it depends on; the message names the missing one."""


class NotImplementedForSymbol(MXNetError, NotImplementedError):
    """A method of arrays that was called on a symbol, which has no values yet."""


class NotSupportedForSparseNDArray(MXNetError, NotImplementedError):
    """A method that only dense arrays have; ``tostype('default')`` makes one."""


class GraphError(MXNetError, ValueError):
    """A symbol, or the JSON of one, that is malformed."""


class FormatError(MXNetError, ValueError):
    """A file that is corrupt, truncated or of another format; the message has path and offset."""


class KVStoreError(MXNetError):
    """An error of a key-value store."""


class UnknownKeyError(KVStoreError, LookupError):
    """A key that was pushed or pulled before it was initialised."""


class EpochEnded(KVStoreError):
    """Another worker has ended the epoch: the round in flight was dropped on all workers, whole."""


class ClusterError(KVStoreError):
    """An error of the processes that train together."""


class PeerLostError(ClusterError):
    """Another process died, stopped answering, or left while it was needed."""


class DeadlineError(ClusterError, TimeoutError):
    """A wait has passed its deadline; the message says whom it waited for."""


class ProtocolError(ClusterError):
    """A peer sent something that the protocol does not allow."""


class JoinRefusedError(ClusterError):
    """The scheduler did not admit this process to the job."""


class RemoteError(ClusterError):
    """An error that was raised at the other end of a connection."""


def py_str(x: bytes) -> str:
    """Bytes of UTF-8 as text."""
    return x.decode("utf-8")
