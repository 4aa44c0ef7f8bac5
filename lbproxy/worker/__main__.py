"""`python -m lbproxy.worker [UID:GID] FD`: how control starts a worker."""

import sys

from lbproxy.descriptors import open_missing_streams

if __name__ == "__main__":
    open_missing_streams()
    from lbproxy.privileges import Identity
    from lbproxy.worker.main import main

    *who, link = sys.argv[1:]
    sys.exit(main(int(link), Identity.parse(who[0]) if who else None))
