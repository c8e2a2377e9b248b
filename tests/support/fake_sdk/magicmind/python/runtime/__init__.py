"""A stand-in for Cambricon's Python SDK that checks how it is called. Nothing of it is Cambricon's.

It has the names, types and order of calls of the vendor's public samples, refuses what they could not do, and
"builds" a file that tells what it was told. `$FAKE_MM_LOG` gets a line a call; `$FAKE_MM` has faults to show,
separated by commas: `parse`, `pairs` (refuses archs with clusters), `calibrate`, `no_device`, `no_file`,
`no_samples`, `crash`, `old` (a release without the EQNM algorithm), `bools` (a refusal is False),
`float_in` (the inserted BN does not make the input UINT8).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

__version__ = "1.7.0-fake"


def faults():
    return os.environ.get("FAKE_MM", "").split(",")


def note(text):
    place = os.environ.get("FAKE_MM_LOG")
    if place:
        with Path(place).open("a") as stream:
            stream.write(text + "\n")


class Code:
    OK, INVALID_ARGUMENT, OUT_OF_RANGE, INTERNAL = range(4)


class Status:
    def __init__(self, code, message=""):
        if not isinstance(code, int) or not isinstance(message, str):
            raise TypeError("Status(code: Code, message: str)")
        self.code, self.message = code, message

    @staticmethod
    def OK():
        return Status(Code.OK)

    def ok(self):
        return self.code == Code.OK

    def __str__(self):
        return "OK" if self.ok() else f"code {self.code}: {self.message}"


class Dims:
    def __init__(self, sides):
        if not isinstance(sides, (list, tuple)) or not all(type(side) is int for side in sides):
            raise TypeError(f"Dims(list of int), not {sides!r}")
        self.sides = list(sides)

    def GetDims(self):
        return list(self.sides)


class DataType:
    FLOAT32, FLOAT16, UINT8, INT8 = "FLOAT32", "FLOAT16", "UINT8", "INT8"


class ModelKind:
    kPytorch, kOnnx, kCaffe, kTensorflow = range(4)


class QuantizationAlgorithm:
    LINEAR_ALGORITHM = 0


if "old" not in faults():
    QuantizationAlgorithm.EQNM_ALGORITHM = 1


class Tensor:
    def __init__(self):
        self.dims = None

    def set_dimension(self, dims):
        if not isinstance(dims, Dims):
            raise TypeError("set_dimension(Dims)")
        note(f"set_dimension {dims.sides}")
        self.dims = dims.sides
        return Status.OK()


class Node:
    def __init__(self, name):
        self._name = name

    def get_node_name(self):
        return self._name

    def get_node_type(self):
        return "IConvNode"

    def set_precision(self, place, kind):
        note(f"set_precision {self._name} {place} {kind}")
        return Status.OK()

    def set_output_type(self, place, kind):
        note(f"set_output_type {self._name} {place} {kind}")
        return Status.OK()


class Network:
    def __init__(self):
        self.parsed, self.calibrated = None, False
        self._inputs = [Tensor()]

    def get_input(self, place):
        if self.parsed is None:
            raise RuntimeError("the network is empty: parse first")
        return self._inputs[place]

    def get_all_nodes_in_network(self):
        return [Node(name) for name in ("conv1", "conv2")]


class BuilderConfig:
    def __init__(self):
        self.value = None

    def parse_from_string(self, text):
        if not isinstance(text, str):
            raise TypeError("parse_from_string(str)")
        value = json.loads(text)
        note("parse_from_string " + json.dumps(value, sort_keys=True))
        if "pairs" in faults() and any(isinstance(item, dict) for item in value.get("archs", [])):
            return False if "bools" in faults() else Status(Code.INVALID_ARGUMENT, "archs: expect string")
        if "archs" not in value or "precision_config" not in value:
            return Status(Code.INVALID_ARGUMENT, "archs and precision_config are needed")
        if value["graph_shape_mutable"] and "dim_range" not in value:
            return Status(Code.INVALID_ARGUMENT, "dim_range is needed")
        self.value = value
        return Status.OK()


class CalibDataInterface:
    def __init__(self):
        self.whole = True


class System:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def device_count(self):
        return 0 if "no_device" in faults() else 1


class Device:
    active_one = None

    def __init__(self):
        self.id = -1

    def active(self):
        Device.active_one = self.id
        note(f"active {self.id}")
        return Status.OK()


class RemoteConfig:
    def __init__(self):
        self.address = ""


class Calibrator:
    def __init__(self, data):
        if not isinstance(data, list) or not all(isinstance(one, CalibDataInterface) for one in data):
            raise TypeError("Calibrator([CalibDataInterface])")
        if not all(getattr(one, "whole", False) for one in data):
            raise RuntimeError("CalibDataInterface.__init__ was not called")
        self._data, self._algorithm, self._remote = data, None, None

    def set_quantization_algorithm(self, algorithm):
        self._algorithm = algorithm
        return Status.OK()

    def set_remote(self, remote):
        self._remote = remote.address
        return Status.OK()

    def calibrate(self, network, config):
        if network.parsed is None or config.value is None or self._algorithm is None:
            raise RuntimeError("calibrate before parse, configure and algorithm")
        if self._remote is None and Device.active_one is None:
            raise RuntimeError("no device is active")
        if "calibrate" in faults():
            return Status(Code.INTERNAL, "range of conv1 is empty")
        (data,) = self._data
        shape = data.get_shape().GetDims()
        if data.get_data_type() != DataType.FLOAT32:
            raise TypeError("FLOAT32 samples")
        data.reset()
        total = 0.0
        while "no_samples" not in faults():
            status = data.next()
            if not status.ok():
                if status.code != Code.OUT_OF_RANGE:
                    return status
                break
            sample = data.get_sample()
            right = isinstance(sample, np.ndarray) and sample.dtype == np.float32
            if not right or list(sample.shape) != shape:
                raise TypeError(f"a sample of {shape}, not {sample.shape} {sample.dtype}")
            total += float(sample.sum())
            note(f"sample {shape}")
        note(f"calibrated {self._algorithm} {total:.1f}")
        network.calibrated = True
        return Status.OK()


class Model:
    def __init__(self, name, network, config):
        self._name, self._network, self._config = name, network, config

    def _nhwc(self):
        return "convert_input_layout" in self._config

    def get_input_names(self):
        return ["input"]

    def get_input_dimensions(self):
        dims = self._network.get_input(0).dims or [1, 3, 32, 32]
        return [Dims([dims[0], dims[2], dims[3], dims[1]] if self._nhwc() else dims)]

    def get_input_data_types(self):
        uint8 = "insert_bn_before_firstnode" in self._config and "float_in" not in faults()
        return [DataType.UINT8 if uint8 else DataType.FLOAT32]

    def get_output_names(self):
        return ["out"]

    def get_output_dimensions(self):
        return [Dims([1, 4])]

    def get_output_data_types(self):
        return [DataType.FLOAT32]

    def serialize_to_file(self, path):
        if not isinstance(path, str):
            raise TypeError("serialize_to_file(str)")
        note("serialize_to_file")
        if "no_file" not in faults():
            told = {"name": self._name, "config": self._config, "from": self._network.parsed}
            Path(path).write_text("FAKE " + json.dumps(told, sort_keys=True))
        return Status.OK()


class Builder:
    def build_model(self, name, network, config):
        if not isinstance(name, str) or network.parsed is None or config.value is None:
            raise RuntimeError("build_model(name, parsed network, config)")
        mode = config.value["precision_config"]["precision_mode"]
        if mode.startswith("qint") and not network.calibrated:
            raise RuntimeError("quantised mode, but the network has no ranges")
        if "crash" in faults():
            os.kill(os.getpid(), 11)
        note(f"build_model {name}")
        return Model(name, network, config.value)
