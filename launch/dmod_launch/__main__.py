"""``python -m dmod_launch`` is ``dmod-launch``."""

from __future__ import annotations

import sys

from dmod_launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
