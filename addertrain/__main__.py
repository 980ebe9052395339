"""`python -m addertrain`."""

import sys

from addertrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
