"""`python -m courseware.chat`."""

import os
import sys

from courseware.chat.command import main

status = main()
sys.stdout.flush()
sys.stderr.flush()
# A thread may still be loading a model. At its usual end, Python would take it out of the middle of torch's code,
# which then aborts the process.
os._exit(status)
