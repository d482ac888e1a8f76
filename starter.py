"""Start a call and steer it, from a shell: the same as the console command `ackbridge`."""

import sys

from ackbridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
