"""The rule of the SOPHON table: what it asks for, and when."""

from pathlib import Path

import pytest

from support.checkout import Checkout, copy_checkout

TABLE = "results/tables/sophon.md"


@pytest.fixture(scope="module")
def own(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose table is of the miniature model on two chips."""
    checkout = copy_checkout(root, tmp_path_factory.mktemp("sophon_table"))
    group = {"evaluator": "voc", "backend": "sophon-twin", "dataset": "procedural", "chips": ["bm1684x"]}
    checkout.edit_yaml(
        "config/chips/sophon.yaml",
        chips={
            "bm1684x": {"precisions": ["fp32", "int8"], "cores": [1]},
            "bm1688": {"precisions": ["int8"], "cores": [1, 2]},
        },
        table={"model": "tiny", "size": 64, "accuracy": [group]},
    )
    return checkout


def test_files_proofs_and_evaluations_of_every_row(own: Checkout) -> None:
    jobs = own.planned(TABLE)
    assert jobs["make_sophon_table"] == 1
    # bm1684x: two precisions; bm1688: one on one core and on two; each of batch 1 and 4.
    assert jobs["compile_sophon"] == 8
    assert jobs["transform_sophon"] == 2
    # The twins of bm1684x's two files of batch 1, and the float ONNX file.
    assert jobs["twin_sophon"] == 2
    assert jobs["evaluate_voc"] == 3


def test_one_rule_makes_the_three_files_and_no_accuracy_table_is_named_so(own: Checkout) -> None:
    jobs = own.planned("results/tables/sophon.csv", "results/tables/sophon.html", TABLE)
    assert jobs["make_sophon_table"] == 1
    assert "make_accuracy_table" not in jobs


def test_a_missing_section_and_an_unknown_size_are_told(root: Path, tmp_path: Path) -> None:
    checkout = copy_checkout(root, tmp_path)
    for section, answer in (
        (None, "no table is declared"),
        ({"model": "tiny", "size": 65}, "unknown size of model 'tiny' '65'"),
        (
            {
                "model": "tiny",
                "size": 64,
                "accuracy": [{"evaluator": "voc", "backend": "ncnn", "dataset": "x"}],
            },
            "is no backend that runs SOPHON files",
        ),
    ):
        checkout.edit_yaml("config/chips/sophon.yaml", table=section)
        done = checkout.snakemake("-n", "--", TABLE, check=False)
        assert done.returncode == 1
        assert answer in done.stdout + done.stderr
