"""`python -m dmod.mxnet`: scripts that import mxnet run as they are, alone and under dmod-launch."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest

import dmod
from dmod import mxnet as runner
from tests.cluster.cluster import environment

ROOT = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "-m", "dmod.mxnet"]

TRAIN = """
    import argparse
    import logging

    import mxnet as mx
    import numpy as np
    from mxnet import metric, sym
    from mxnet.io import NDArrayIter
    from mxnet.module.base_module import BaseModule

    import layers

    parser = argparse.ArgumentParser()
    parser.add_argument("--kv-store", default="local")
    args = parser.parse_args()
    kv = mx.kv.create(args.kv_store)
    rng = np.random.RandomState(7)
    label = rng.randint(0, 3, 96).astype(np.int)
    data = np.eye(3)[label] + rng.normal(0, 0.1, (np.product((96,)), 3))
    mine = slice(kv.rank, None, kv.num_workers)
    it = NDArrayIter(data[mine], label[mine].astype(np.float), batch_size=8)
    mod = mx.mod.Module(layers.network(), context=mx.cpu())
    assert isinstance(mod, BaseModule)
    mx.random.seed(1)
    mod.fit(it, num_epoch=8, kvstore=kv, optimizer_params={"learning_rate": 0.5},
            initializer=mx.init.Xavier(), eval_metric=metric.Accuracy())
    accuracy = mod.score(it, "acc")[0][1]
    print("rank %d of %d: %s" % (kv.rank, kv.num_workers, "learnt" if accuracy > 0.95 else accuracy))
"""
LAYERS = """
    import mxnet.symbol as sym

    def network():
        x = sym.FullyConnected(sym.Variable("data"), num_hidden=3, name="fc")
        return sym.SoftmaxOutput(x, name="softmax")
"""


def write(directory: Path, **sources: str) -> None:
    for name, source in sources.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(source))


def start(*command: object, directory: Path) -> subprocess.CompletedProcess[str]:
    places = f"{ROOT}:{ROOT / 'launch'}"
    return subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env=environment(PYTHONPATH=places, DMOD_NUMBA=0),
        capture_output=True,
        text=True,
        timeout=120,
    )


def output(*command: object, directory: Path) -> str:
    done = start(*command, directory=directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_script_trains_alone(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    write(tmp_path / "scripts", train=TRAIN, layers=LAYERS)
    assert output(*RUN, "scripts/train.py", directory=tmp_path) == "rank 0 of 1: learnt\n"


def test_a_script_trains_with_two_workers(tmp_path: Path) -> None:
    write(tmp_path, train=TRAIN, layers=LAYERS)
    launch = [sys.executable, "-m", "dmod_launch", "-n", "2", "-s", "1", "--"]
    lines = output(*launch, *RUN, "train.py", "--kv-store", "dist_sync", directory=tmp_path).splitlines()
    assert [f"[worker {r}] rank {r} of 2: learnt" in lines for r in range(2)] == [True, True], lines


WHAT_PYTHON_DOES = """
    import os, pickle, sys, traceback
    class Here: pass
    print(sys.argv, __name__, __file__, __package__, __spec__, __doc__)
    print(os.path.samefile(sys.path[0], {directory!r}), sys.modules["__main__"].Here is Here)
    print(type(pickle.loads(pickle.dumps(Here()))) is Here)
    import beside
    print(beside.VALUE)
    sys.exit(3)
"""


def test_a_script_sees_what_python_would_show_it(tmp_path: Path) -> None:
    write(tmp_path, script=WHAT_PYTHON_DOES.format(directory=str(tmp_path)), beside="VALUE = 5\n")
    command = [str(tmp_path / "script.py"), "-x", "--help"]
    plain = start(sys.executable, *command, directory=ROOT)
    ours = start(*RUN, *command, directory=ROOT)
    assert plain.returncode == ours.returncode == 3, ours.stderr
    assert ours.stdout == plain.stdout and "True True\nTrue\n5\n" in ours.stdout


def test_packages_and_archives_run_too(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    write(
        tmp_path / "package", __init__="", __main__="from . import part\n", part="import mxnet; print(mxnet)"
    )
    assert "<module 'mxnet'" in output(*RUN, "-m", "package", directory=tmp_path)
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", "import sys, mxnet; print(mxnet.__version__, sys.argv[1:])")
    assert output(*RUN, "program.zip", "a", directory=tmp_path) == "1.9.1 ['a']\n"


def test_an_error_in_the_script_ends_it_with_its_traceback(tmp_path: Path) -> None:
    write(tmp_path, wrong="import mxnet as mx\nmx.nd.array([1]).reshape((2,))\n", syntax="def\n")
    done = start(*RUN, "wrong.py", directory=tmp_path)
    assert done.returncode == 1 and 'wrong.py", line 2' in done.stderr
    assert "SyntaxError" in start(*RUN, "syntax.py", directory=tmp_path).stderr


def test_the_command_says_how_it_is_used(tmp_path: Path) -> None:
    assert "python -m dmod.mxnet SCRIPT ARGS" in output(*RUN, "--help", directory=tmp_path)
    assert start(*RUN, directory=tmp_path).returncode == 2
    done = start(*RUN, "missing.py", directory=tmp_path)
    assert done.returncode == 2 and "no such script: 'missing.py'" in done.stderr


@pytest.fixture
def installed():  # type: ignore[no-untyped-def]
    remove = runner.install()
    yield
    remove()


def test_modules_are_the_same_under_both_names(installed: None) -> None:
    import mxnet
    import mxnet.img
    import mxnet.module.base_module
    import mxnet.nd as short
    from mxnet.image.detection import ImageDetIter
    from mxnet.image.image import ImageIter
    from mxnet.initializer import Xavier
    from mxnet.io.io import NDArrayIter
    from mxnet.libinfo import __version__
    from mxnet.symbol.symbol import Variable

    assert mxnet.nd is short is dmod.nd and mxnet.module.base_module.BaseModule is dmod.mod.BaseModule
    assert Xavier is dmod.init.Xavier and NDArrayIter is dmod.io.NDArrayIter and Variable is dmod.sym.Variable
    assert mxnet.img is dmod.image and ImageIter is dmod.image.ImageIter
    assert ImageDetIter is dmod.image.ImageDetIter
    assert mxnet.__version__ == __version__ == "1.9.1"
    assert dmod.nd.__spec__.name == dmod.nd.__name__ == "dmod.ndarray"


@pytest.mark.parametrize(
    "statement", ["import mxnet.gluon", "from mxnet import gluon", "from mxnet.gluon import nn"]
)
def test_gluon_is_refused_by_name(installed: None, statement: str) -> None:
    with pytest.raises(ImportError, match=r"mxnet.gluon is out of dmod's scope: .* Symbol, Module"):
        exec(statement)


def test_what_is_not_there_is_refused_by_name(installed: None) -> None:
    import mxnet

    assert not hasattr(mxnet, "gluon")
    with pytest.raises(AttributeError, match=r"mxnet.autograd is out of dmod's scope"):
        _ = mxnet.autograd
    with pytest.raises(AttributeError, match="no attribute 'something'"):
        _ = mxnet.something
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'mxnet.modul': .* did you mean 'module'"):
        exec("import mxnet.modul")
    with pytest.raises(ImportError, match="something"):
        exec("from mxnet import something")


def test_numpy_has_its_old_names_meanwhile() -> None:
    before = dir(np), np.fromstring
    remove = runner.install()
    try:
        assert np.int is int and np.float is float and np.object is object and np.str is str
        assert np.product([2, 3]) == 6 and np.asscalar(np.array([4])) == 4 and np.NaN is np.nan
        assert np.array([1, 0], np.bool).dtype == bool and np.sometrue([0, 1])
        assert np.in1d([[1, 2]], [2]).tolist() == [False, True] and np.float_ is np.float64
        assert np.fromstring(b"\x01\x02", dtype=np.uint8).tolist() == [1, 2]
        assert np.fromstring("1 2", sep=" ").tolist() == [1.0, 2.0]
        found = np.fromstring(b"\x01", np.uint8)
        found[0] = 7  # its own memory
    finally:
        remove()
    assert (dir(np), np.fromstring) == before
    remove()  # again: nothing happens
    assert "mxnet" not in sys.modules or sys.modules["mxnet"].__version__
    with pytest.raises(AttributeError):
        _ = np.int
