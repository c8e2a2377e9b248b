"""The message table: field numbers that other readers count on."""

from __future__ import annotations

import pytest

from facekiln.caffe.schema import PARAM_OF_TYPE, message_class, param_class

# BVLC src/caffe/proto/caffe.proto, and its SSD branch for permute_param.
NUMBERS = {
    "NetParameter": {"name": 1, "input": 3, "input_dim": 4, "input_shape": 8, "layer": 100},
    "BlobProto": {"num": 1, "channels": 2, "height": 3, "width": 4, "data": 5, "shape": 7, "double_data": 8},
    "BlobShape": {"dim": 1},
    "LayerParameter": {
        "name": 1,
        "type": 2,
        "bottom": 3,
        "top": 4,
        "blobs": 7,
        "concat_param": 104,
        "convolution_param": 106,
        "eltwise_param": 110,
        "inner_product_param": 117,
        "pooling_param": 121,
        "power_param": 122,
        "relu_param": 123,
        "softmax_param": 125,
        "slice_param": 126,
        "prelu_param": 131,
        "reshape_param": 133,
        "flatten_param": 135,
        "batch_norm_param": 139,
        "elu_param": 140,
        "scale_param": 142,
        "input_param": 143,
        "crop_param": 144,
        "permute_param": 202,
        "upsample_param": 211,
    },
    "ConvolutionParameter": {
        "num_output": 1,
        "bias_term": 2,
        "pad": 3,
        "kernel_size": 4,
        "group": 5,
        "stride": 6,
    }
    | {
        "pad_h": 9,
        "pad_w": 10,
        "kernel_h": 11,
        "kernel_w": 12,
        "stride_h": 13,
        "stride_w": 14,
        "dilation": 18,
    },
    "PoolingParameter": {
        "pool": 1,
        "kernel_size": 2,
        "stride": 3,
        "pad": 4,
        "global_pooling": 12,
        "round_mode": 13,
    },
}


@pytest.mark.parametrize("message", sorted(NUMBERS))
def test_field_numbers(message: str) -> None:
    fields = message_class(message).DESCRIPTOR.fields_by_name
    assert {name: fields[name].number for name in NUMBERS[message]} == NUMBERS[message]


def test_weights_have_the_wire_form_of_packed_floats() -> None:
    blob = message_class("BlobProto")()
    blob.data.append(b"\x00\x00\x80\x3f")
    assert blob.SerializeToString() == b"\x2a\x04\x00\x00\x80\x3f"
    assert list(message_class("UnpackedBlob").FromString(blob.SerializeToString()).data) == [1.0]


def test_enum_values_are_bvlcs() -> None:
    assert message_class("EltwiseParameter")(operation="MAX").operation == 2
    assert message_class("PoolingParameter")(pool="AVE").pool == 1
    assert message_class("PoolingParameter")(round_mode="FLOOR").round_mode == 1
    assert message_class("ReductionParameter")(operation="MEAN").operation == 4


def test_every_listed_type_has_its_message() -> None:
    assert all(param_class(layer_type) is not None for layer_type in PARAM_OF_TYPE)
    assert param_class("AbsVal") is None
