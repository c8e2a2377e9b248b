"""`python -m facekiln.chips.nnie.mapper X.cfg`: the emulated nnie_mapper."""

from facekiln.chips.nnie.mapper.mapper import main

if __name__ == "__main__":
    raise SystemExit(main())
