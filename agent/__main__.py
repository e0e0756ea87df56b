"""``python -m agent`` is ``turbo``."""

import sys

from agent.cli import console

sys.exit(console())
