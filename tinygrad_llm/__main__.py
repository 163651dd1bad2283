"""`python -m tinygrad_llm` is `tinygrad-llm`."""

import sys

from .cli import main

sys.exit(main())
