"""Preprocessing, priors, decoding and NMS in numpy: declared once per model and used by every stage."""
