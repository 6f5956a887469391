"""The quickstart's promise: guidance survives the shift, and costs little where there is none."""

import json
import statistics
import sys
from pathlib import Path

results = json.loads(Path(sys.argv[1]).read_text())
mean = {
    method: {split: statistics.mean(values) for split, values in splits.items()} for method, splits in results.items()
}
gain = mean["sage"]["shifted"] - mean["none"]["shifted"]
kept = mean["sage"]["in_distribution"] / mean["none"]["in_distribution"]
print(f"shifted accuracy {gain:+.3f}, in-distribution accuracy {kept:.3f} of plain training's")
if gain < 0.25 or kept < 0.9:
    sys.exit("the quickstart does not keep its promise: at least +0.25 shifted, at least 0.9 in distribution")
