"""`python -m sage_hf`, which is what `accelerate launch -m sage_hf` runs."""

import sys

from .cli import main

sys.exit(main())
