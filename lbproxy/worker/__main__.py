"""`python -m lbproxy.worker FD`: how control starts a worker."""

import sys

from lbproxy.descriptors import open_missing_streams

if __name__ == "__main__":
    open_missing_streams()
    from lbproxy.worker.main import main

    sys.exit(main(int(sys.argv[1])))
