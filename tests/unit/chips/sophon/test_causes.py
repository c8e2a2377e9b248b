"""Causes of failures are found in mid-log; texts are tpu_mlir 1.26's own, from failures made on purpose."""

import pytest

from facekiln.chips.sophon.causes import cause_of
from facekiln.fingerprint import modules_behind

LAST = "\nRuntimeError: [!Error]: tpuc-opt m.mlir --processor-assign=...\n"


def compared(similarity: str, target: str, reference: str, verdict: str) -> str:
    return (
        f"2 compared\nmin_similiarity = ({similarity})\n"
        f"Target    {target}\nReference {reference}\nnpz compare {verdict}.\n"
    )


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        (
            compared("0.99, 0.98, 35.9", "m_bm1684x_int8_sym_tpu_outputs.npz", "top.npz", "FAILED") + LAST,
            "similarity and signal-to-noise ratio are 0.99, 0.98, 35.9",
            "deploy.tolerance",
        ),
        (
            # The first comparison passed; the second, of the simulated file, did not.
            compared("1.0, 1.0, inf", "m_tpu_outputs.npz", "top.npz", "PASSED")
            + compared("0.9645, 0.7, 11.0", "m_model_outputs.npz", "m_tpu_outputs.npz", "FAILED")
            + LAST,
            "is not the quantised model: least cosine, euclidean similarity and signal-to-noise ratio "
            "are 0.9645, 0.7, 11.0 (m_model_outputs.npz against m_tpu_outputs.npz)",
            "keep the release",
        ),
        (
            "can't get scale and zeropoint\nUNREACHABLE executed at Module.cpp:1874!\nStack dump:\nAborted"
            + LAST,
            "no threshold for some layer",
            "facekiln sophon calibrate",
        ),
        ("can't open calibration table file!\nUNREACHABLE executed\n" + LAST, "table is not there", "path"),
        (
            "model_deploy.py: error: argument --chip/--processor: invalid choice: 'bm9' (choose ...)",
            "knows no chip 'bm9'",
            "config/chips/sophon.yaml",
        ),
        (
            "model_deploy.py: error: unrecognized arguments: --nonsense 3",
            "options are others in this release: unrecognized arguments: --nonsense 3",
            "release",
        ),
        ("ASSERT executed at TopLowering.h:360\nASSERT INFO:Not Implemented\n" + LAST, "precision", "bm1684"),
        ("ASSERT INFO:axis is out of range\n" + LAST, "axis is out of range", "log"),
        (
            "AssertionError: Please check --input_shapes formula or check if there is any dynamic dim",
            "no fixed shape",
            "--input_shapes",
        ),
        (
            "UnboundLocalError: local variable 'session' referenced before assignment",
            "IR version is above 9",
            "ir_version = 8",
        ),
        (
            "InvalidArgument: Got invalid dimensions for input: input for the following indices\n"
            " index: 2 Got: 100 Expected: 240\n Please fix either the inputs or the model.",
            "index: 2 Got: 100 Expected: 240",
            "same model and size",
        ),
        (
            "[BMRT][launch:1278] WRONG:Shapes of the input tensors are not supported\npython: Assertion",
            "another size or batch",
            "inspect",
        ),
        (
            "    assert (overflow >= 0)\nAssertionError\nBMLIB Send Quit Message",
            "another size or batch",
            "inspect",
        ),
        (
            "[BMODEL][ModelCtx:538] FATAL: File[cut.bmodel] is broken ...\npython: Assertion `flag'.",
            "cut.bmodel is cut short or damaged",
            "build it again",
        ),
        ("RuntimeError: There is no inputs", "calibration folder has no", "--dataset"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'a.mlir'", "a.mlir is not there", "paths"),
        (
            "ModuleNotFoundError: No module named 'psutil'",
            "lacks something: No module named 'psutil'",
            "--make",
        ),
        (
            "python: /lib/libc.so.6: version `GLIBC_2.36' not found (required by python)",
            "a glibc of the wheel",
            "--make",
        ),
        ("*** stack smashing detected ***: terminated\nAborted", "a glibc of the wheel", "--make"),
        (
            "OSError: [Errno 28] No space left on device\nDuring handling ..." + LAST,
            "disk is full",
            "free some",
        ),
        ("[Running]: tpuc-opt m.mlir\nKilled\nTraceback ..." + LAST, "for want of memory", "mem_mb"),
        ("LLVM ERROR: out of memory\nAllocation failed\n" + LAST, "not enough memory", "mem_mb"),
        ("RuntimeError: Op not support:{'Det'}", "it has no operator 'Det' of ONNX", "OnnxConverter.py"),
        ("KeyError: 'kernel_shape'" + LAST, "KeyError: 'kernel_shape'", "log"),
        ("    assert (file.endswith('.npy'))\nAssertionError\n", "assert (file.endswith('.npy'))", "log"),
        ("begin to cmodel init...\nhalfway", "it said last: halfway", "mem_mb"),
        ("", "ended without a word", "mem_mb"),
    ],
)
def test_causes(text: str, told: str, hint: str) -> None:
    cause = cause_of(text, 1)
    assert told in cause.what
    assert cause.hint is not None and hint in cause.hint


def test_a_signal_tells_more_than_the_text() -> None:
    assert "want of memory" in cause_of("KeyError: 'a'", -9).what


def test_the_tools_own_words_are_kept_short() -> None:
    assert len(cause_of(f"KeyError: '{'k' * 5000}'{LAST}", 1).what) < 400


def test_a_better_hint_compiles_nothing_anew() -> None:
    behind = modules_behind("facekiln.chips.sophon.compile_file")
    assert "facekiln.chips.sophon.environment" in behind
    assert not {f"facekiln.chips.sophon.{name}" for name in ("causes", "process", "tool")} & set(behind)
