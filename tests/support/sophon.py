"""What tests of the SOPHON room share: the tool's text, a small network, an environment that is not made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from facekiln.chips.sophon.environment import Environment

# As npz_tool of tpu_mlir 1.26 prints it.
COMPARISON = """
[boxes_Concat                    ]      SIMILAR [{verdict}]
    (1, 64, 4) float32
    cosine_similarity      = 0.998049
    euclidean_similarity   = 0.937500
    sqnr_similarity        = 23.065548
1 compared
min_similiarity = (0.9980487823486328, 0.9375000892549529, 23.065547943115234)
Target    {target}
Reference {reference}
npz compare {verdict}.
"""


def fake_environment(folder: Path) -> Environment:
    """An environment that is nowhere made."""
    return Environment(folder / "sophon", "0123456789ab", "1.26", False, folder / "sophon.ready")


def small_network() -> onnx.ModelProto:
    """`input` [1, 3, 8, 8] to `scores` [1, 64, 2] and `boxes` [1, 64, 4]."""
    random = np.random.default_rng(1)

    def weight(name: str, out: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(size=(out, 3, 3, 3)).astype(np.float32), name)

    nodes = []
    for name in ("scores", "boxes"):
        nodes += [
            helper.make_node(
                "Conv", ["input", f"{name}_w"], [f"{name}_map"], kernel_shape=[3, 3], pads=[1] * 4
            ),
            helper.make_node("Transpose", [f"{name}_map"], [f"{name}_t"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"{name}_t", f"{name}_shape"], [f"{name}_r"]),
        ]
    nodes[2].output[0], nodes[5].output[0] = "scores_r", "boxes"
    nodes.append(helper.make_node("Softmax", ["scores_r"], ["scores"], axis=2))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("scores", TensorProto.FLOAT, [1, 64, 2]), value("boxes", TensorProto.FLOAT, [1, 64, 4])],
        [
            weight("scores_w", 2),
            weight("boxes_w", 4),
            numpy_helper.from_array(np.array([1, -1, 2], np.int64), "scores_shape"),
            numpy_helper.from_array(np.array([1, -1, 4], np.int64), "boxes_shape"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
