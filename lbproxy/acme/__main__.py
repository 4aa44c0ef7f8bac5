"""`python -m lbproxy.acme`: orders certificates for control. With file and domains as arguments: makes one to stand in.

Standard input and output are the link with control: see messages.py.
"""

import os
import sys

from lbproxy.acme.placeholder import write_placeholder
from lbproxy.acme.run import run

if __name__ == "__main__":
    os.umask(0o077)
    if len(sys.argv) > 2:
        try:
            write_placeholder(sys.argv[1], sys.argv[2:])
        except OSError as exc:
            sys.exit(exc.strerror or str(exc))
    else:
        run()
