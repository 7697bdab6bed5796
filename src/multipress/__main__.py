"""`python -m multipress`."""

import sys

from multipress.cli.main import main

sys.exit(main())
