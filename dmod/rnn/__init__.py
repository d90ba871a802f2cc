"""``mx.rnn``: recurrent networks of cells, their checkpoints, and sentences for bucketing."""

from __future__ import annotations

from dmod.rnn.base_cell import BaseRNNCell
from dmod.rnn.bucket_iter import BucketSentenceIter, encode_sentences
from dmod.rnn.cells import GRUCell, LSTMCell, RNNCell
from dmod.rnn.checkpoint import do_rnn_checkpoint, load_rnn_checkpoint, save_rnn_checkpoint
from dmod.rnn.containers import BidirectionalCell, SequentialRNNCell
from dmod.rnn.conv_cells import BaseConvRNNCell, ConvGRUCell, ConvLSTMCell, ConvRNNCell
from dmod.rnn.fused import FusedRNNCell
from dmod.rnn.modifiers import DropoutCell, ModifierCell, ResidualCell, ZoneoutCell
from dmod.rnn.params import RNNParams
from dmod.rnn.unrolling import rnn_unroll

__all__ = [
    "BaseConvRNNCell",
    "BaseRNNCell",
    "BidirectionalCell",
    "BucketSentenceIter",
    "ConvGRUCell",
    "ConvLSTMCell",
    "ConvRNNCell",
    "DropoutCell",
    "FusedRNNCell",
    "GRUCell",
    "LSTMCell",
    "ModifierCell",
    "RNNCell",
    "RNNParams",
    "ResidualCell",
    "SequentialRNNCell",
    "ZoneoutCell",
    "do_rnn_checkpoint",
    "encode_sentences",
    "load_rnn_checkpoint",
    "rnn_unroll",
    "save_rnn_checkpoint",
]
