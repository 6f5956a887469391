"""`python -m docs.generator`: build the site, and fail where anything is wrong with it."""

import sys

from . import ROOT
from .site import SITE, build

problems = build()
for problem in problems:
    print(problem, file=sys.stderr)
if problems:
    sys.exit(f"{len(problems)} problems; the site is not fit to be published.")
print(f"{SITE.relative_to(ROOT)}/index.html and {sum(1 for _ in SITE.rglob('*.html')) - 1} other pages")
