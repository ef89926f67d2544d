"""`python -m askos`."""

import sys

from askos.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
