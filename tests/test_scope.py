"""What is not there is refused with the reason, or with what was probably meant."""

from __future__ import annotations

import re

import pytest

import dmod as mx


@pytest.mark.parametrize(
    "statement",
    [
        "from dmod import gluon",
        "import dmod.gluon",
        "from dmod.gluon import nn",
        "from dmod import np, npx",
        "from dmod import autograd",
    ],
)
def test_imports_of_what_is_out_of_scope_say_so(statement: str) -> None:
    with pytest.raises(ImportError, match=r"dmod\.\w+ is out of dmod's scope: .* Symbol, Module"):
        exec(statement)


def test_attributes_out_of_scope_say_so_and_are_not_there() -> None:
    assert not hasattr(mx, "gluon")
    with pytest.raises(AttributeError, match=r"dmod.gluon is out of dmod's scope: .* docs/migrating.md"):
        _ = mx.gluon
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'dmod.modul'"):
        exec("import dmod.modul")


@pytest.mark.parametrize("module", [mx.sym, mx.nd], ids=["sym", "nd"])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FullyConected", "did you mean 'FullyConnected'?"),
        ("softmaxoutput", "did you mean 'SoftmaxOutput'"),
        ("MultiBoxPrior", "there is contrib.MultiBoxPrior"),
        ("gemm", "there is linalg.gemm"),
        ("unifrm", "did you mean 'uniform'"),
        ("_plus_scalr", "has no attribute '_plus_scalr'"),
    ],
)
def test_a_misspelt_operator_is_told_the_nearest(module: object, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(hint)):
        getattr(module, name)
