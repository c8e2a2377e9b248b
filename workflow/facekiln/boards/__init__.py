"""Boards: reach them, share them, run on them, and bring results home."""
