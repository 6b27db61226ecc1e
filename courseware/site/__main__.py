"""`python -m courseware.site build` and `open`."""

import sys

from courseware.site.site import main

sys.exit(main())
