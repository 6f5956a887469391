"""
Write the quickstart's digits and its untrained model to folders, for runs of `sage-hf train`.

    python training/digits.py --out outputs/digits

makes `data/` (a dataset that `load_saliency_dataset` opens) and `model/` (a checkpoint with fresh weights).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import set_seed

from sage_hf.cli.quickstart import digits_model, digits_processor
from sage_hf.data.digits import digits_with_shortcut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; must not exist or be empty")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the weights (default: %(default)s)")
    args = parser.parse_args()
    out = Path(args.out)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} holds something already. Choose another folder, or move it away.")
    digits_with_shortcut(seed=args.seed).save_to_disk(out / "data")
    set_seed(args.seed)
    digits_model().save_pretrained(out / "model")
    digits_processor().save_pretrained(out / "model")


if __name__ == "__main__":
    main()
