"""The NNIE's documented limits as data: id, text and public source of each.

Sources: "HiSVP API" = HiSVP API reference (2021-01-28); "guide" = HiSVP development guide, tables 3-6 and
3.1.6, in public transcriptions; "splitter" = a public script that cuts networks for the NNIE; "published
files" = the prototxt and .wk files of nniefacelib and others.
"""

from __future__ import annotations

from dataclasses import dataclass

from facekiln.chips.nnie.wk.container import NAME_BYTES


@dataclass(frozen=True)
class Limit:
    """One documented limit."""

    rule: str
    text: str
    source: str


@dataclass(frozen=True)
class Finding:
    """One place where a network breaks a limit; `level` is refuse or warn."""

    rule: str
    layer: str
    what: str
    hint: str
    level: str = "refuse"

    @property
    def limit(self) -> Limit:
        """The limit that is broken."""
        return LIMITS[self.rule]

    def sentence(self) -> str:
        """Return it as one line for a person."""
        return f"{self.layer}: {self.what} [{self.rule}: {self.limit.text}; {self.limit.source}]"


_LIMIT_ROWS = [
    ("NNIE-INPUT-COUNT", "at most 16 inputs", "HiSVP API"),
    ("NNIE-INPUT-N", "N is 1; batches are the board's affair", "guide"),
    ("NNIE-INPUT-SIZE", "image width and height 8..4096", "HiSVP API"),
    ("NNIE-INPUT-CHANNELS", "U8 images have 1 or 3 channels", "HiSVP API"),
    ("NNIE-OUTPUT-COUNT", "at most 16 outputs per segment", "HiSVP API"),
    ("NNIE-LAYER-TYPE", "a layer type of the supported list", "vendor script's supported_layers"),
    ("NNIE-CROP", "no Crop: the sizes must agree without it", "nniefacelib"),
    ("NNIE-ORDER", "layers stand behind what they read and write in place first", "published files"),
    ("NNIE-ACTIVATION-ORDER", "an activation stands right behind its producer", "nniefacelib's article"),
    ("NNIE-NAME", f"names differ in their first {NAME_BYTES} characters", "published files"),
    ("NNIE-KERNEL", "kernel, stride and dilation 1..255, pad 0..255", "guide"),
    ("NNIE-CHANNELS", "at most 4096 channels", "guide"),
    ("NNIE-GROUP", "at most 2048 groups in a Convolution", "guide"),
    ("NNIE-POOLING-CEIL", "Pooling rounds up and its text has no rounding field", "Taurus document 4.2.3.6"),
    ("NNIE-RESHAPE", "four dims, the first of them 0: only C, H and W change", "nniefacelib, mgeconvert"),
    ("NNIE-PERMUTE", "Permute can only support (0,1,2,3) -> (0,2,3,1) order", "the mapper's own message"),
    ("NNIE-SOFTMAX-AXIS", "a map or a vector, and not along N", "splitter"),
    ("NNIE-CONCAT-AXIS", "axis 1..3", "splitter"),
    ("NNIE-POWER", "exponent one of -3, -2, -1, -1/2, 1/2, 1, 2, 3", "guide"),
    ("NNIE-UPSAMPLE", "scale 2, nearest", "MQBench's NNIE notes"),
    ("NNIE-INNERPRODUCT-TAIL", "only activations and softmax follow an InnerProduct", "splitter"),
    ("NNIE-RELU-SLOPE", "ReLU without negative_slope", "legalise.relu_negative_slope in the config"),
    ("NNIE-HP", "`_hp` layers need compile_mode 2", "guide"),
]  # fmt: skip
LIMITS = {rule: Limit(rule, text, source) for rule, text, source in _LIMIT_ROWS}

SUPPORTED = frozenset(
    {
        "Convolution",
        "Deconvolution",
        "Pooling",
        "InnerProduct",
        "LRN",
        "BatchNorm",
        "Scale",
        "Bias",
        "Eltwise",
        "ReLU",
        "PReLU",
        "AbsVal",
        "TanH",
        "Sigmoid",
        "BNLL",
        "ELU",
        "LSTM",
        "RNN",
        "Softmax",
        "Exp",
        "Log",
        "Reshape",
        "Flatten",
        "Split",
        "Slice",
        "Concat",
        "SPP",
        "Power",
        "Threshold",
        "MVN",
        "Parameter",
        "Reduction",
        "Proposal",
        "Custom",
        "Input",
        "Dropout",
        "ROIPooling",
        "PSROIPooling",
        "Normalize",
        "Upsample",
        "CReLU",
        "PassThrough",
        "DepthwiseConv",
        "RReLU",
        "Permute",
    }
)
ACTIVATIONS = frozenset(["ReLU", "PReLU", "AbsVal", "TanH", "Sigmoid", "BNLL", "ELU", "RReLU"])
NO_LAYER_HINTS = {
    "Interp": "bilinear resizing is not an NNIE layer: use nearest x2 or a learned Deconvolution",
    "PriorBox": "compute priors on the host and cut the network before this layer",
    "DetectionOutput": "decode and suppress on the host and cut the network before this layer",
    "Tile": "cut the network before this layer",
    "ReLU6": "train with ReLU, or clip on the host",
    "HardSwish": "train with ReLU",
    "Mish": "train with ReLU",
}
