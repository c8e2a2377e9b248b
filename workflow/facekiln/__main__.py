"""`python -m facekiln`: the same as the `facekiln` command."""

import sys

from facekiln.cli import main

sys.exit(main())
