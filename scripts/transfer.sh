# Sourced by xd_train.sh, xd_test.sh and dg_test.sh: trained on one data set, tested on others.
#
#   SOURCE  data set to train on (default imagenet); its results go to the family's folders, those of
#           another source to folders that name it

. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
SOURCE=${SOURCE:-imagenet}

# prepare TRAINER SEED: checks what every script needs; the folders `trained` and `tested` and
# `method`, the arguments of train.py that say method and configuration.
prepare() {
    local trainer=$1
    require_seed "$2"
    require_shots "$SHOTS"
    require_data
    require_dataset "$SOURCE"
    choose_cfg "$trainer" "$SOURCE" xd
    trained="$OUTPUT/$SOURCE/$trainer/${CFG}_${SHOTS}shots"
    tested="$OUTPUT/evaluation/$trainer/${CFG}_${SHOTS}shots"
    [ "$SOURCE" = imagenet ] || tested="$OUTPUT/evaluation/from_$SOURCE/$trainer/${CFG}_${SHOTS}shots"
    method=(
        --trainer "$trainer" --config-file "configs/trainers/$trainer/$CFG.yaml"
        ${BACKBONE:+--config-file "configs/backbones/$BACKBONE.yaml"}
    )
}

# test_on TRAINER DATASET SEED [KEY VALUE ...]: evaluate the source's run on all classes of DATASET.
test_on() {
    local dataset=$2 seed=$3
    prepare "$1" "$seed"
    shift 3
    require_dataset "$dataset"
    [ "$dataset" != "$SOURCE" ] || fail "$dataset is the source itself: xd_train.sh has tested on it"
    [ -f "$trained/seed$seed/results.json" ] ||
        fail "nothing trained in $trained/seed$seed: run xd_train.sh first"
    run_once "$tested/$dataset/seed$seed" --seed "$seed" "${method[@]}" \
        --dataset-config-file "configs/datasets/$dataset.yaml" \
        --model-dir "$trained/seed$seed" ${LOADEP:+--load-epoch "$LOADEP"} \
        --eval-only DATASET.SUBSAMPLE_CLASSES all "$@"
}
