"""Pictures and tables of networks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dmod
import dmod.symbol as sym
from dmod import visualization as viz
from dmod.base import InvalidArgument, MXNetError
from tests.oracle.make_summary_fixtures import print_all


def network() -> sym.Symbol:
    x = sym.FullyConnected(sym.Variable("data"), num_hidden=8, name="fc1")
    x = sym.BatchNorm(x, name="bn")
    x = sym.Activation(x, act_type="relu", name="relu1")
    return sym.SoftmaxOutput(sym.FullyConnected(x, num_hidden=3, name="fc2"), name="softmax")


@pytest.fixture
def without_package(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)  # importing it fails


@pytest.mark.parametrize("package", [True, False])
def test_nodes_edges_and_shapes_are_drawn(package: bool, monkeypatch: Any) -> None:
    if package:
        pytest.importorskip("graphviz")
    else:
        monkeypatch.setitem(sys.modules, "graphviz", None)
    source = viz.plot_network(network(), shape={"data": (2, 5)}).source
    edges = re.findall(r'^\s*"?(\w+)"? -> "?(\w+)"? \[.*label="?([\dx]*)"?[ \]]', source, re.M)
    assert edges == [
        ("fc1", "data", "5"),
        ("bn", "fc1", "8"),
        ("relu1", "bn", "8"),
        ("fc2", "relu1", "8"),
        ("softmax", "fc2", "3"),
        ("softmax", "softmax_label", ""),
    ]
    assert "_weight" not in source and "moving" not in source
    assert re.search(r"FullyConnected(\\n|\n)8", source) and re.search(r"Activation(\\n|\n)relu", source)


def test_weights_are_drawn_on_request(without_package: None) -> None:
    source = viz.plot_network(network(), hide_weights=False, title="mlp").source
    assert (
        source.startswith("digraph mlp {")
        and "fc1 -> fc1_weight" in source
        and "bn -> bn_moving_var" in source
    )


def test_node_attributes_hold_for_all_nodes(without_package: None) -> None:
    source = viz.plot_network(network(), node_attrs={"fixedsize": "false", "shape": "ellipse"}).source
    assert source.count("fixedsize=false") == 7 and "fixedsize=true" not in source


def test_several_outputs_are_one_graph(without_package: None) -> None:
    a, b = sym.Variable("a"), sym.Variable("b")
    source = viz.plot_network(sym.Group([a + b, a * b])).source
    assert source.count("->") == 4


def test_names_are_quoted() -> None:
    graph = viz.Digraph("a b")
    graph.node("node", label='say "hi"\nthere', color="1.5")
    graph.edge("x-1", "7", weight=2)
    assert graph.source.splitlines() == [
        'digraph "a b" {',
        '\t"node" [label="say \\"hi\\"\\nthere" color=1.5]',
        '\t"x-1" -> 7 [weight=2]',
        "}",
    ]


def test_the_text_is_saved(tmp_path: Path, without_package: None) -> None:
    graph = viz.plot_network(network(), title="mlp")
    path = graph.save(directory=str(tmp_path / "new"))
    assert Path(path) == tmp_path / "new" / "mlp.gv" and Path(path).read_text() == graph.source + "\n"


def test_without_dot_there_is_a_clear_error_and_notebooks_show_text(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    graph = viz.Digraph()
    with pytest.raises(MXNetError, match=r"graphviz\.org"):
        graph.render(directory=str(tmp_path))
    assert graph._repr_svg_() is None
    assert [p.name for p in tmp_path.iterdir()] == ["plot.gv"]


def test_dot_draws_the_picture(monkeypatch: Any, tmp_path: Path) -> None:
    def run(command: list[str], input: bytes, **kwargs: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, b"picture of " + input, b"")

    monkeypatch.setattr(shutil, "which", lambda name: "dot")
    monkeypatch.setattr(subprocess, "run", run)
    graph = viz.Digraph("g", "svg")
    picture = Path(graph.render(directory=str(tmp_path), cleanup=True))
    assert picture == tmp_path / "g.gv.svg" and picture.read_bytes() == b"picture of " + graph.source.encode()
    assert [p.name for p in tmp_path.iterdir()] == ["g.gv.svg"]
    assert graph._repr_svg_() == "picture of " + graph.source


def test_a_failure_of_dot_is_told(monkeypatch: Any, tmp_path: Path) -> None:
    def run(command: list[str], **kwargs: Any) -> Any:
        raise subprocess.CalledProcessError(1, command, stderr=b"syntax error")

    monkeypatch.setattr(shutil, "which", lambda name: "dot")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(MXNetError, match="dot failed: syntax error"):
        viz.Digraph().render(directory=str(tmp_path))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: viz.plot_network(3), TypeError),  # type: ignore[arg-type]
        (lambda: viz.print_summary("x"), TypeError),  # type: ignore[arg-type]
        (lambda: viz.Digraph(format="tiff2"), InvalidArgument),
        (lambda: viz.Digraph().render(view=True), InvalidArgument),
        (lambda: viz.plot_network(network(), shape={"softmax_label": (3,)}), MXNetError),
    ],
)
def test_what_cannot_be_drawn_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_the_summary_is_mxnets(capsys: Any) -> None:
    print_all(dmod)
    assert capsys.readouterr().out == (Path(__file__).parent / "fixtures" / "summaries.txt").read_text()


def test_parameters_count_whatever_their_names(capsys: Any) -> None:
    shared, data = sym.Variable("a"), sym.Variable("x")
    one = sym.FullyConnected(data, shared, num_hidden=4, name="f")
    two = sym.FullyConnected(data, shared, num_hidden=4, name="g")
    viz.print_summary(sym.SoftmaxOutput(one + two, name="softmax"), shape={"x": (2, 3)})
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "FullyConnected" in line]
    assert [row[2] for row in rows] == ["16", "4"]


def test_the_summary_counts_parameters(capsys: Any) -> None:
    viz.print_summary(network(), shape={"data": (2, 5)}, line_length=80)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if "(" in line][1:]
    assert rows == [
        ["data(null)", "5", "0"],
        ["fc1(FullyConnected)", "8", "48", "data"],
        ["bn(BatchNorm)", "8", "16", "fc1"],
        ["relu1(Activation)", "8", "0", "bn"],
        ["fc2(FullyConnected)", "3", "27", "relu1"],
        ["softmax(SoftmaxOutput)", "3", "0", "fc2"],
    ]
    assert "Total params: 91" in lines and all(len(line) <= 80 for line in lines)


def test_the_summary_lists_every_previous_layer(capsys: Any) -> None:
    weight, data = sym.Variable("w_weight"), sym.Variable("data")
    one = sym.FullyConnected(data, weight, num_hidden=5, no_bias=True, name="one")
    two = sym.FullyConnected(one, weight, num_hidden=5, no_bias=True, name="two")
    viz.print_summary(one + two, shape={"data": (2, 5)})
    out = capsys.readouterr().out
    assert "Total params: 25" in out and re.search(r" one *\n *two *\n", out)
