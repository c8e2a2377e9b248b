"""GFPQ arithmetic on whole networks, run by ONNX Runtime."""
