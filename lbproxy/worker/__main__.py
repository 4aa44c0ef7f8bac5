"""`python -m lbproxy.worker FD`: how control starts a worker."""

import sys

from lbproxy.worker.main import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
