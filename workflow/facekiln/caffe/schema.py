"""Caffe's protobuf messages, built at run time from a table: no protoc and no generated code.

Field names and numbers are those of BVLC's caffe.proto (BSD-2-Clause); `permute_param` and `norm_param` are
those of its SSD branch, `upsample_param` that of the forks which have it. Only messages that an inference
network can hold are listed; the text reader refuses any other field by name and line.

`BlobProto.data` is declared as chunks of bytes. On the wire that is the same as packed floats, and numpy
reads it without making a Python object of each weight.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# A message per paragraph: "label type name number", a label only where the field is repeated.
_TABLE = """
BlobShape: packed int64 dim 1
BlobProto: num int32 1; channels int32 2; height int32 3; width int32 4; data chunks 5; diff chunks 6;
  shape BlobShape 7; double_data chunks 8; double_diff chunks 9
UnpackedBlob: repeated float data 5
FillerParameter: type string 1; value float 2; min float 3; max float 4; mean float 5; std float 6;
  sparse int32 7; variance_norm VarianceNorm 8
NetState: phase Phase 1; level int32 2; repeated string stage 3
NetStateRule: phase Phase 1; min_level int32 2; max_level int32 3; repeated string stage 4;
  repeated string not_stage 5
ParamSpec: name string 1; share_mode DimCheckMode 2; lr_mult float 3; decay_mult float 4
TransformationParameter: scale float 1; mirror bool 2; crop_size uint32 3; mean_file string 4;
  repeated float mean_value 5; force_color bool 6; force_gray bool 7
BatchNormParameter: use_global_stats bool 1; moving_average_fraction float 2; eps float 3
BiasParameter: axis int32 1; num_axes int32 2; filler FillerParameter 3
ConcatParameter: concat_dim uint32 1; axis int32 2
ConvolutionParameter: num_output uint32 1; bias_term bool 2; repeated uint32 pad 3;
  repeated uint32 kernel_size 4; group uint32 5; repeated uint32 stride 6; weight_filler FillerParameter 7;
  bias_filler FillerParameter 8; pad_h uint32 9; pad_w uint32 10; kernel_h uint32 11; kernel_w uint32 12;
  stride_h uint32 13; stride_w uint32 14; engine Engine 15; axis int32 16; force_nd_im2col bool 17;
  repeated uint32 dilation 18
CropParameter: axis int32 1; repeated uint32 offset 2
DropoutParameter: dropout_ratio float 1; scale_train bool 2
EltwiseParameter: operation EltwiseOp 1; repeated float coeff 2; stable_prod_grad bool 3
ELUParameter: alpha float 1
ExpParameter: base float 1; scale float 2; shift float 3
FlattenParameter: axis int32 1; end_axis int32 2
InnerProductParameter: num_output uint32 1; bias_term bool 2; weight_filler FillerParameter 3;
  bias_filler FillerParameter 4; axis int32 5; transpose bool 6
InputParameter: repeated BlobShape shape 1
LogParameter: base float 1; scale float 2; shift float 3
LRNParameter: local_size uint32 1; alpha float 2; beta float 3; norm_region NormRegion 4; k float 5;
  engine Engine 6
MVNParameter: normalize_variance bool 1; across_channels bool 2; eps float 3
NormalizeParameter: across_spatial bool 1; scale_filler FillerParameter 2; channel_shared bool 3; eps float 4
ParameterParameter: shape BlobShape 1
PermuteParameter: repeated uint32 order 1
PoolingParameter: pool PoolMethod 1; kernel_size uint32 2; stride uint32 3; pad uint32 4; kernel_h uint32 5;
  kernel_w uint32 6; stride_h uint32 7; stride_w uint32 8; pad_h uint32 9; pad_w uint32 10; engine Engine 11;
  global_pooling bool 12; round_mode RoundMode 13; ceil_mode bool 1013
PowerParameter: power float 1; scale float 2; shift float 3
PReLUParameter: filler FillerParameter 1; channel_shared bool 2
ReductionParameter: operation ReductionOp 1; axis int32 2; coeff float 3
ReLUParameter: negative_slope float 1; engine Engine 2
ReshapeParameter: shape BlobShape 1; axis int32 2; num_axes int32 3
ScaleParameter: axis int32 1; num_axes int32 2; filler FillerParameter 3; bias_term bool 4;
  bias_filler FillerParameter 5
SigmoidParameter: engine Engine 1
SliceParameter: slice_dim uint32 1; repeated uint32 slice_point 2; axis int32 3
SoftmaxParameter: engine Engine 1; axis int32 2
SPPParameter: pyramid_height uint32 1; pool PoolMethod 2; engine Engine 6
TanHParameter: engine Engine 1
ThresholdParameter: threshold float 1
TileParameter: axis int32 1; tiles int32 2
UpsampleParameter: scale int32 1; scale_h int32 2; scale_w int32 3; pad_out_h bool 4; pad_out_w bool 5;
  upsample_h int32 6; upsample_w int32 7
LayerParameter: name string 1; type string 2; repeated string bottom 3; repeated string top 4;
  repeated float loss_weight 5; repeated ParamSpec param 6; repeated BlobProto blobs 7;
  repeated NetStateRule include 8; repeated NetStateRule exclude 9; phase Phase 10;
  repeated bool propagate_down 11; transform_param TransformationParameter 100;
  concat_param ConcatParameter 104; convolution_param ConvolutionParameter 106;
  dropout_param DropoutParameter 108; eltwise_param EltwiseParameter 110; exp_param ExpParameter 111;
  inner_product_param InnerProductParameter 117; lrn_param LRNParameter 118; mvn_param MVNParameter 120;
  pooling_param PoolingParameter 121; power_param PowerParameter 122; relu_param ReLUParameter 123;
  sigmoid_param SigmoidParameter 124; softmax_param SoftmaxParameter 125; slice_param SliceParameter 126;
  tanh_param TanHParameter 127; threshold_param ThresholdParameter 128; prelu_param PReLUParameter 131;
  spp_param SPPParameter 132; reshape_param ReshapeParameter 133; log_param LogParameter 134;
  flatten_param FlattenParameter 135; reduction_param ReductionParameter 136; tile_param TileParameter 138;
  batch_norm_param BatchNormParameter 139; elu_param ELUParameter 140; bias_param BiasParameter 141;
  scale_param ScaleParameter 142; input_param InputParameter 143; crop_param CropParameter 144;
  parameter_param ParameterParameter 145; permute_param PermuteParameter 202;
  norm_param NormalizeParameter 206; upsample_param UpsampleParameter 211
V1LayerParameter: repeated string bottom 2; repeated string top 3; name string 4
NetParameter: name string 1; repeated V1LayerParameter layers 2; repeated string input 3;
  repeated int32 input_dim 4; force_backward bool 5; state NetState 6; debug_info bool 7;
  repeated BlobShape input_shape 8; repeated LayerParameter layer 100
"""

# Field 13 of PoolingParameter is `round_mode` here and a bool `ceil_mode` of opposite meaning in some forks.
# Only text is ever read from either, so the fork's name gets a number that nothing writes.
_ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "DimCheckMode": {"STRICT": 0, "PERMISSIVE": 1},
    "VarianceNorm": {"FAN_IN": 0, "FAN_OUT": 1, "AVERAGE": 2},
    "Engine": {"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "ReductionOp": {"SUM": 1, "ASUM": 2, "SUMSQ": 3, "MEAN": 4},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
}

# Which `*_param` a layer type takes. A type that is not here takes none.
PARAM_OF_TYPE = {
    "BatchNorm": "batch_norm_param",
    "Bias": "bias_param",
    "Concat": "concat_param",
    "Convolution": "convolution_param",
    "Crop": "crop_param",
    "Deconvolution": "convolution_param",
    "DepthwiseConv": "convolution_param",
    "ConvolutionDepthwise": "convolution_param",
    "Dropout": "dropout_param",
    "Eltwise": "eltwise_param",
    "ELU": "elu_param",
    "Exp": "exp_param",
    "Flatten": "flatten_param",
    "InnerProduct": "inner_product_param",
    "Input": "input_param",
    "Log": "log_param",
    "LRN": "lrn_param",
    "MVN": "mvn_param",
    "Normalize": "norm_param",
    "Parameter": "parameter_param",
    "Permute": "permute_param",
    "Pooling": "pooling_param",
    "Power": "power_param",
    "PReLU": "prelu_param",
    "Reduction": "reduction_param",
    "ReLU": "relu_param",
    "Reshape": "reshape_param",
    "Scale": "scale_param",
    "Sigmoid": "sigmoid_param",
    "Slice": "slice_param",
    "Softmax": "softmax_param",
    "SPP": "spp_param",
    "TanH": "tanh_param",
    "Threshold": "threshold_param",
    "Tile": "tile_param",
    "Upsample": "upsample_param",
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "uint32": _Field.TYPE_UINT32,
    "bool": _Field.TYPE_BOOL,
    "float": _Field.TYPE_FLOAT,
    "string": _Field.TYPE_STRING,
}


def _add_field(message: descriptor_pb2.DescriptorProto, entry: str) -> None:
    *label, first, second, number = entry.split()
    type_name, name = (first, second) if label else (second, first)
    field = message.field.add(name=name, number=int(number))
    field.label = _Field.LABEL_REPEATED if label or type_name == "chunks" else _Field.LABEL_OPTIONAL
    if label == ["packed"]:
        field.options.packed = True
    if type_name == "chunks":
        field.type = _Field.TYPE_BYTES
    elif type_name in _SCALARS:
        field.type = _SCALARS[type_name]
    else:
        field.type = _Field.TYPE_ENUM if type_name in _ENUMS else _Field.TYPE_MESSAGE
        field.type_name = f".caffe.{type_name}.Value" if type_name in _ENUMS else f".caffe.{type_name}"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="facekiln/caffe.proto", package="caffe", syntax="proto2")
    for paragraph in re.split(r"\n(?=\w)", _TABLE.strip()):
        name, _, fields = paragraph.partition(":")
        message = file.message_type.add(name=name)
        for entry in fields.split(";"):
            _add_field(message, entry)
    for name, values in _ENUMS.items():
        # Enum values share the scope around their enum, and SUM exists twice; so each enum gets its own.
        enum = file.message_type.add(name=name).enum_type.add(name="Value")
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    return file


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    # A pool of our own: another package in this process may have registered its own caffe.proto.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return pool


@cache
def message_class(name: str) -> Any:
    """Return the protobuf class of a message, e.g. "NetParameter" or "LayerParameter"."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"caffe.{name}"))


@cache
def param_class(layer_type: str) -> Any | None:
    """Return the class of the `*_param` message that a layer type takes, or None where it takes none."""
    field = PARAM_OF_TYPE.get(layer_type)
    if field is None:
        return None
    message = _pool().FindMessageTypeByName("caffe.LayerParameter").fields_by_name[field].message_type
    assert message is not None, f"{field} is no message"
    return message_factory.GetMessageClass(message)
