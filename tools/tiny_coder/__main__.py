"""``python -m tools.tiny_coder build``."""

from tools.tiny_coder.build import main

main()
