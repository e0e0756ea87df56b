"""``python -m agent`` is ``turbo``."""

import sys

from agent.cli import main

sys.exit(main())
