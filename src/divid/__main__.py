"""`python -m divid` is the command `divid`."""

from __future__ import annotations

import sys

from divid.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
