"""Operators of tmfile 2: their numbers, names and parameter records.

Source: tm2_format.h of OAID/Tengine. Fields have four bytes each: `i` signed, `u` unsigned, `f` float, `V`
the offset of a vector of ints, `F` one of floats, `S` one of a string; `b` is a single byte, and C's
alignment puts padding before a wider field. Fields were only ever appended to a record, so a file of an older
Tengine may hold other bytes where today's record has its last fields.
"""

from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
0 Accuracy
1 BatchNormalization f:rescale_factor f:eps i:caffe_flavor
2 BilinearResize f:scale_x f:scale_y i:type
3 Concat i:axis
4 Const
5 Convolution i:kernel_h i:kernel_w i:stride_h i:stride_w i:dilation_h i:dilation_w i:input_channel \
i:output_channel i:group i:activation i:pad_h0 i:pad_w0 i:pad_h1 i:pad_w1
6 Deconvolution i:num_output i:kernel_h i:kernel_w i:stride_h i:stride_w i:pad_w0 i:pad_h0 i:pad_w1 i:pad_h1 \
i:dilation_h i:dilation_w i:group i:activation i:output_pad_h i:output_pad_w
7 DetectionOutput i:num_classes i:keep_top_k i:nms_top_k f:confidence_threshold f:nms_threshold
8 Dropout
9 Eltwise u:type i:caffe_flavor f:shift f:power f:scale
10 Flatten i:axis i:end_axis
11 FullyConnected i:num_output
12 InputOp
13 LRN i:local_size f:alpha f:beta i:norm_region f:k f:bias b:is_onnx
14 Normalize i:across_spatial i:channel_shared
15 Permute i:flag i:order0 i:order1 i:order2 i:order3
16 Pooling u:method i:kernel_h i:kernel_w i:stride_h i:stride_w i:global i:caffe_flavor i:pad_h0 i:pad_w0 \
i:pad_h1 i:pad_w1
17 PReLU
18 PriorBox F:min_size F:max_size F:variance F:aspect_ratio i:flip i:clip i:img_size i:img_h i:img_w \
f:step_w f:step_h f:offset i:num_priors i:out_dim
19 Region i:num_classes i:side i:num_box i:coords f:confidence_threshold f:nms_threshold F:biases
20 ReLU f:negative_slope
21 ReLU6
22 Reorg i:stride
23 Reshape i:is_mxnet i:reverse V:shape i:is_onnx
24 ROIPooling i:pooled_h i:pooled_w f:spatial_scale
25 RPN F:ratios F:anchor_scales i:feat_stride i:basesize i:min_size i:per_nms_topn i:post_nms_topn \
f:nms_thresh u:anchors
26 Scale i:axis i:num_axes i:bias_term
27 Slice i:axis V:slice_points V:begins V:sizes i:iscaffe i:ismxnet i:isonnx i:begin i:end i:step
28 Softmax i:axis
29 Split i:axis i:split_dim b:is_caffe b:is_onnx V:sizes
30 DetectionPostProcess i:max_detections i:max_classes_per_detection f:nms_score_threshold \
f:nms_iou_threshold i:num_classes F:scales
31 Gemm f:alpha f:beta i:transA i:transB
32 Generic i:max_input_num i:max_output_num S:op_name
33 Logistic
34 LSTM f:forget_bias f:clip i:output_len i:sequence_len i:input_size i:hidden_size i:cell_size \
i:has_peephole i:has_projection i:has_clip i:has_bias i:has_init_state i:forget_act i:input_act \
i:output_act i:cellin_act i:cellout_act i:mxnet_flag
35 RNN f:clip i:output_len i:sequence_len i:input_size i:hidden_size i:has_clip i:has_bias i:has_init_state \
i:activation
36 Tanh
37 Sigmoid
38 Squeeze i:dim_0 i:dim_1 i:dim_2 i:dim_3
39 FusedBNScaleReLU
40 Pad i:n0 i:n1 i:c0 i:c1 i:h0 i:h1 i:w0 i:w1 i:mode f:value
41 StridedSlice i:begin_n i:end_n i:stride_n i:begin_c i:end_c i:stride_c i:begin_h i:end_h i:stride_h \
i:begin_w i:end_w i:stride_w
42 ArgMax i:axis i:keepdims
43 ArgMin i:axis i:keepdims
44 TopKV2 i:k i:sorted
45 Reduction i:dim_0 i:dim_1 i:dim_2 i:dim_3 i:type i:keepdim
46 Maximum
47 Minimum
48 GRU f:clip i:output_len i:sequence_len i:input_size i:hidden_size i:has_clip i:has_gate_bias \
i:has_candidate_bias i:has_init_state i:mxnet_flag
49 Addn i:axis
50 SwapAxis i:dim_0 i:dim_1
51 Upsample f:scale
52 SpaceToBatchND i:dilation_x i:dilation_y i:pad_top i:pad_bottom i:pad_left i:pad_right
53 BatchToSpaceND i:dilation_x i:dilation_y i:crop_top i:crop_bottom i:crop_left i:crop_right
54 Resize f:scale_x f:scale_y i:type
55 ShuffleChannel i:group
56 Crop i:num_args i:offset_c i:offset_h i:offset_w i:crop_h i:crop_w b:center_crop i:axis i:flag
57 ROIAlign i:pooled_width i:pooled_height f:spatial_scale
58 PSROIPooling i:pooled_w i:pooled_h f:spatial_scale i:output_dim
59 Unary i:type
60 ExpandDims i:axis
61 Bias i:bias_size
62 Noop
63 Threshold f:threshold
64 HardSigmoid f:alpha f:beta
65 Embedding i:num_output i:input_dim i:bias_term i:weight_data_size
66 InstanceNorm f:eps
67 MVN i:across_channels i:normalize_variance f:eps
68 Absval
69 Cast i:type_from i:type_to
70 HardSwish f:alpha f:beta
71 Interp i:type f:width_scale f:height_scale i:output_width i:output_height
72 Selu f:alpha f:lambda
73 Elu f:alpha
74 BroadMul
75 Logical u:type
76 Gather i:axis i:indices_num b:is_onnx
77 Transpose V:permutation
78 Comparison i:type
79 SpaceToDepth i:block_size
80 DepthToSpace i:block_size
81 Reverse
82 SparseToDense i:output_shape_size0 i:output_shape_size1 i:default_value
83 Ceil
84 SquaredDifference
85 Round
86 ZerosLike
87 Clip f:max f:min
88 Unsqueeze V:axes
89 ReduceL2 i:axis i:keepdim
90 Mean
91 MatMul
92 Expand V:shape i:dim_num
93 Scatter i:axis b:is_onnx
94 Shape
95 Where
96 Tile i:frame_flag i:reps_size V:reps
97 Mish
98 L2Pool i:padding_type i:kernel_h i:kernel_w i:stride_h i:stride_w
99 LogSoftmax i:axis
100 ReLU1
101 L2Normalization
102 Softplus
103 Reciprocal
105 SpatialTransformer i:sampler_type i:transformer_type i:shape_size V:shape
106 Gelu
107 LayerNorm f:eps
"""
_WIDTH = {"b": 1}
# The letters that struct does not have.
STRUCT_CODES = {"b": "B", "u": "I", "V": "I", "F": "I", "S": "I"}
# The record that Tengine 1.9 and older know for Reshape; Lite and 1.12 do not.
_OLD_RESHAPE = "i:dim_0 i:dim_1 i:dim_2 i:dim_3 i:dim_size i:axis"


@dataclass(frozen=True)
class Field:
    """One field of a record: its code, name and byte offset."""

    code: str
    name: str
    offset: int


@dataclass(frozen=True)
class Op:
    """One operator."""

    id: int
    name: str
    fields: tuple[Field, ...]
    size: int


def _laid_out(number: int, name: str, words: list[str]) -> Op:
    fields, at = [], 0
    for word in words:
        code, label = word.split(":")
        width = _WIDTH.get(code, 4)
        at = -(-at // width) * width
        fields.append(Field(code, label, at))
        at += width
    return Op(number, name, tuple(fields), -(-at // 4) * 4)


def _table() -> dict[int, Op]:
    rows = [line.split() for line in _TABLE.strip().splitlines()]
    return {int(row[0]): _laid_out(int(row[0]), row[1], row[2:]) for row in rows}


OPS = _table()
OP_IDS = {op.name: op.id for op in OPS.values()}
OLD_RESHAPE = _laid_out(OP_IDS["Reshape"], "Reshape", _OLD_RESHAPE.split())

# Values of fields.
NO_ACTIVATION, RELU, RELU6 = -1, 0, 6
ELTWISE = {
    "prod": 0,
    "prod_scalar": 1,
    "sum": 2,
    "sum_scalar": 3,
    "sub": 4,
    "sub_scalar": 5,
    "max": 6,
    "rsqrt": 7,
    "min_scalar": 8,
    "div": 10,
    "log": 11,
    "exp": 12,
    "sqrt": 13,
    "floor": 14,
    "square": 15,
    "pow": 16,
    "power": 17,
}
NEAREST, BILINEAR, BILINEAR_CORNERS = 1, 2, 4
# caffe_flavor of Pooling: floor and an average without padding; ceil; floor and an average with padding.
FLOOR, CEIL, COUNT_PAD = 0, 1, 16


# What has weights that are quantised; not Deconvolution, which `validate` refuses.
WEIGHTED = ("Convolution", "FullyConnected")


def op_name(number: int) -> str:
    """Return an operator's name; `op NUMBER` where there is none of that number."""
    return OPS[number].name if number in OPS else f"op {number}"
