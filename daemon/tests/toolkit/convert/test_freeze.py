"""A checkpoint of TensorFlow 1 becomes a small frozen graph, and computes what it computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeaid.cli.model import model
from edgeaid.errors import Unsupported
from edgeaid.formats.exchange import tensorflow
from edgeaid.toolkit.convert import environments
from edgeaid.toolkit.run import child

#: A network as in the guides of its time: dropout by a placeholder, a loss, an optimiser, names of the framework.
_TRAINING = """
import sys
import tensorflow as tf
v1 = tf.compat.v1
v1.disable_eager_execution()
x = v1.placeholder(tf.float32, [None, 12, 12, 1], "pixels")
y = v1.placeholder(tf.int64, [None], "label")
keep = v1.placeholder(tf.float32, [], "keep")
w = v1.get_variable("w", [3, 3, 1, 4])
h = tf.nn.relu(tf.nn.conv2d(x, w, 1, "SAME"))
h = tf.reshape(tf.nn.max_pool2d(h, 2, 2, "VALID"), [-1, 144])
h = v1.nn.dropout(h, keep_prob=keep)
logits = tf.matmul(h, v1.get_variable("v", [144, 5])) + v1.get_variable("b", [5])
answer = tf.nn.softmax(logits, name="answer")
loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
train = v1.train.AdamOptimizer(0.01).minimize(loss)
saver = v1.train.Saver()
with v1.Session() as session:
    session.run(v1.global_variables_initializer())
    saver.save(session, sys.argv[1])
"""


def test_a_checkpoint_without_its_index_is_told_what_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "net.meta").write_bytes(b"x")
    result = CliRunner().invoke(
        model, ["freeze", str(tmp_path / "net.meta"), "--input-node", "x", "--output-node", "y"]
    )
    assert result.exit_code == 66
    assert "net.index" in result.output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_and_dropout_are_cut_off_and_the_ends_are_named(tmp_path: Path) -> None:
    try:
        python = environments.python("tensorflow")
    except Unsupported as error:
        pytest.skip(str(error))
    done = child([python, "-c", _TRAINING, tmp_path / "net"], timeout=600, env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert done.status == 0, done.error[-2000:]
    result = CliRunner().invoke(
        model, ["freeze", str(tmp_path / "net.meta"), "--input-node", "pixels", "--output-node", "answer",
                "-o", str(tmp_path / "net.pb"), "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["error"] < 1e-6
    assert len(told["dropout"]) == 1
    assert told["after"] < told["before"]
    graph = tensorflow.read_graphdef((tmp_path / "net.pb").read_bytes())
    assert [(i.name, i.shape) for i in graph.inputs] == [("input", (1, 12, 12, 1))]
    assert [o.name for o in graph.outputs] == ["output"]
    assert not {n.op for n in graph.nodes} & {"RandomUniform", "Floor", "VariableV2", "ApplyAdam"}
    checked = json.loads(
        CliRunner().invoke(model, ["check", str(tmp_path / "net.pb"), "--target", "ncs", "--json"]).stdout
    )
    assert checked[0]["worst"] != "error"
