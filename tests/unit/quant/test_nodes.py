"""Which nodes of a graph stand last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from facekiln.quant.nodes import last_weighted


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[str, list[str], list[str]]], set[str]]:
    """Up to ten nodes with one or two results, each fed by any before it; some have weights."""
    tensors, nodes = ["input"], []
    for number in range(draw(st.integers(0, 10))):
        inputs = draw(st.lists(st.sampled_from(tensors), max_size=3))
        outputs = [f"t{number}_{place}" for place in range(draw(st.integers(1, 2)))]
        nodes.append((f"n{number}", inputs, outputs))
        tensors += outputs
    return nodes, {name for name, _, _ in nodes if draw(st.booleans())}


@given(graphs())
def test_no_weight_stands_behind_the_last(
    drawn: tuple[list[tuple[str, list[str], list[str]]], set[str]],
) -> None:
    nodes, weighted = drawn

    def behind(outputs: list[str]) -> set[str]:
        """All nodes that a node's results come to, by walking forward from it."""
        fed = [(name, after) for name, inputs, after in nodes if not set(inputs).isdisjoint(outputs)]
        return {name for name, _ in fed}.union(*(behind(after) for _, after in fed))

    expected = [
        name for name, _, outputs in nodes if name in weighted and weighted.isdisjoint(behind(outputs))
    ]
    assert last_weighted(nodes, weighted) == expected


def test_heads_stand_beside_each_other() -> None:
    nodes = [
        ("trunk", ["input"], ["a"]),
        ("box", ["a"], ["b"]),
        ("score", ["a"], ["s"]),
        ("softmax", ["s"], ["p"]),
    ]
    assert last_weighted(nodes, {"trunk", "box", "score"}) == ["box", "score"]
