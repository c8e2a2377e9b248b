"""The `.wk` container: read, write, inspect."""
