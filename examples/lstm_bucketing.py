"""Train a language model on sentences of different lengths, in one process or in many.

    python examples/lstm_bucketing.py
    python examples/lstm_bucketing.py --data ptb.train.txt --validation ptb.valid.txt --num-hidden 200
    dmod-launch -n 2 -s 1 -- python examples/lstm_bucketing.py --kv-store dist_sync

The sentences come from a small grammar that the program makes up, such as "every old dog that sees a cat
runs". Each is filled up to the length of the smallest bucket that holds it; a network per bucket, all with
the same parameters, predicts each next word. The perplexity is by how many words, on average, the model
hesitates: it begins near the size of the vocabulary.

``--data FILE`` trains on a text with a sentence per line and spaces between words, such as the Penn Treebank
in the form that is used for language models.
"""

from __future__ import annotations

import argparse
import random

import numpy as np

import dmod as mx

BUCKETS = [4, 6, 8, 12]
PADDING = 0  # the number that stands for no word: not a label to learn
NOUNS = {"dog": "barks", "cat": "purrs", "bird": "sings", "child": "laughs", "horse": "neighs"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--kv-store", default="local", help="local, device or dist_sync; default: %(default)s")
    option("--data", metavar="FILE", help="a sentence per line; default: made up")
    option("--validation", metavar="FILE", help="likewise; words that --data lacks count as one")
    option("--num-sentences", type=int, default=2000, help="to train on; default: %(default)s")
    option("--num-layers", type=int, default=1, help="default: %(default)s")
    option("--num-hidden", type=int, default=32, help="default: %(default)s")
    option("--num-embed", type=int, default=16, help="default: %(default)s")
    option("--dropout", type=float, default=0.0, help="between layers; default: %(default)s")
    option("--fused", action="store_true", help="all layers and steps in one operator")
    option("--batch-size", type=int, default=32, help="sentences per worker and step; default: %(default)s")
    option("--num-epochs", type=int, default=5, help="default: %(default)s")
    option("--lr", type=float, default=1.0, help="learning rate; default: %(default)s")
    option("--mom", type=float, default=0.9, help="momentum; default: %(default)s")
    option("--model-prefix", metavar="PREFIX", help="save a checkpoint per epoch under this name")
    option("--seed", type=int, default=0, help="default: %(default)s")
    option("--max-perplexity", type=float, help="fail if validation ends above this")
    return parser.parse_args()


def make_sentences(count: int, seed: int) -> list[list[str]]:
    """Sentences in which the verb follows from a noun that may stand some words before it."""
    rng = random.Random(seed)

    def noun_phrase() -> list[str]:
        adjectives = [a for a in ("very", "old", "small", "red") if rng.random() < 0.25]
        return [rng.choice(["the", "a", "every"]), *adjectives, rng.choice(list(NOUNS))]

    sentences = []
    for _ in range(count):
        subject = noun_phrase()
        clause = ["that", "sees", *noun_phrase()] if rng.random() < 0.4 else []
        sentences.append([*subject, *clause, NOUNS[subject[-1]], "."])
    return sentences


def read_sentences(path: str) -> list[list[str]]:
    """The words of each line, and a mark for its end."""
    with open(path, encoding="utf-8") as file:
        return [[*line.split(), "<eos>"] for line in file if line.strip()]


def buckets_of(args: argparse.Namespace, encoded: list[list[int]]) -> list[int]:
    """Ten lengths that a tenth of the sentences each have or fall short of; the same on all workers."""
    if not args.data:
        return BUCKETS
    lengths = sorted(map(len, encoded))
    return sorted({lengths[(len(lengths) - 1) * tenth // 10] for tenth in range(1, 11)})


def make_cell(args: argparse.Namespace) -> mx.rnn.BaseRNNCell:
    """A stack of LSTM layers, in one operator or in single cells."""
    fused = mx.rnn.FusedRNNCell(args.num_hidden, args.num_layers, "lstm", dropout=args.dropout)
    return fused if args.fused else fused.unfuse()


def network(args: argparse.Namespace, cell: mx.rnn.BaseRNNCell, vocabulary: int):
    """The function that makes the network of a bucket."""

    def sym_gen(length: int):
        data, label = mx.sym.Variable("data"), mx.sym.Variable("softmax_label")
        words = mx.sym.Embedding(data, input_dim=vocabulary, output_dim=args.num_embed, name="embed")
        outputs, _ = cell.unroll(length, words, merge_outputs=True)
        outputs = mx.sym.Reshape(outputs, shape=(-1, args.num_hidden))
        scores = mx.sym.FullyConnected(outputs, num_hidden=vocabulary, name="pred")
        labels = mx.sym.Reshape(label, shape=(-1,))
        net = mx.sym.SoftmaxOutput(
            scores, labels, use_ignore=True, ignore_label=PADDING, normalization="valid", name="softmax"
        )
        return net, ["data"], ["softmax_label"]

    return sym_gen


def iterators(args: argparse.Namespace, kv: mx.kv.KVStore):
    """This worker's share of the sentences, others to validate with, and the vocabulary."""
    if args.data:
        sentences = read_sentences(args.data)
        others = read_sentences(args.validation) if args.validation else sentences[-len(sentences) // 10 :]
    else:
        sentences = make_sentences(args.num_sentences, args.seed)
        others = make_sentences(400, args.seed + 1)
    encoded, vocab = mx.rnn.encode_sentences(sentences, invalid_label=PADDING, start_label=1)
    unseen, _ = mx.rnn.encode_sentences(others, vocab, unknown_token="<unk>")
    mine = encoded[kv.rank :: kv.num_workers]
    buckets = buckets_of(args, encoded)
    train, val = (
        mx.rnn.BucketSentenceIter(part, args.batch_size, buckets=buckets, invalid_label=PADDING)
        for part in (mine, unseen)
    )
    return train, val, vocab


def main() -> None:
    args = parse_arguments()
    kv = mx.kv.create(args.kv_store)
    mx.random.seed(args.seed)
    random.seed(args.seed + kv.rank)
    np.random.seed(args.seed + kv.rank)
    train, val, vocab = iterators(args, kv)
    cell = make_cell(args)
    module = mx.mod.BucketingModule(
        network(args, cell, len(vocab)), default_bucket_key=train.default_bucket_key
    )
    perplexity = mx.metric.Perplexity(PADDING)
    save = [mx.rnn.do_rnn_checkpoint(cell, args.model_prefix)] if args.model_prefix and kv.rank == 0 else None
    module.fit(
        train,
        eval_data=val,
        eval_metric=perplexity,
        kvstore=kv,
        # The loss is already a mean over the words of a batch, so its gradient is not divided again.
        optimizer_params={
            "learning_rate": args.lr,
            "momentum": args.mom,
            "rescale_grad": 1 / kv.num_workers,
            "clip_gradient": 1.0,
        },
        initializer=mx.init.Xavier(),
        num_epoch=args.num_epochs,
        epoch_end_callback=save,
    )
    found = dict(module.score(val, perplexity))["perplexity"]
    print(f"{len(vocab)} words, {kv.num_workers} workers: perplexity {found:.2f}", flush=True)
    if args.max_perplexity is not None and found > args.max_perplexity:
        raise SystemExit(f"perplexity {found:.2f} is above {args.max_perplexity}")


if __name__ == "__main__":
    main()
