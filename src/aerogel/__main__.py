"""Run the command line as ``python -m aerogel``, which is what torchrun needs."""

import sys

from aerogel.cli import main

if __name__ == "__main__":
    sys.exit(main())
