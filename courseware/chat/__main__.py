"""`python -m courseware.chat`."""

import sys

from courseware.chat.command import main

sys.exit(main())
