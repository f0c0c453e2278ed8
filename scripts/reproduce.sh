#!/usr/bin/env bash
# One published table, end to end: every run of a protocol, then ours beside the published figures.
#
# usage: DATA=... bash scripts/reproduce.sh METHOD PROTOCOL [--dry-run] [KEY VALUE ...]
#        bash scripts/reproduce.sh MaPLe base2new --dry-run
#        SEEDS=1 DATASETS="dtd eurosat" bash scripts/reproduce.sh CoCoOp base2new
#
# METHOD: a trainer with its published recipe (configs/trainers/METHOD), ZeroshotCLIP for CLIP.
# PROTOCOL: base2new  eleven data sets, base classes to new ones
#           xd        ImageNet to the ten others
#           dg        ImageNet to its four variants
#           fewshot   eleven data sets, 1 2 4 8 16 images a class
#           lodo      five DomainBed sets, one domain left out
#           openclass the same, with classes that were not trained on
# --dry-run prints the commands and runs nothing. A run that is finished is skipped, an interrupted
# one resumes: after a stop, call it again.
# Environment: DATA (required), DATASETS (those above), SEEDS="1 2 3", CFG, SHOTS, SOURCE=imagenet,
# OUTPUT=output; KEY VALUE pairs go to the configuration.
set -euo pipefail
given_output=${OUTPUT:-output} given_shots=${SHOTS:-}
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
case "${1:-}" in -h | --help) show_help ;; esac
[ $# -ge 2 ] || fail "usage: $0 METHOD PROTOCOL [--dry-run] [KEY VALUE ...] (--help explains)"
method=$1 protocol=$2 dry_run=
shift 2
if [ "${1:-}" = --dry-run ]; then
    dry_run=yes
    shift
fi

ten="caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft sun397 dtd eurosat ucf101"
domain_sets="pacs vlcs office_home terra_incognita domain_net"
case $protocol in
    base2new | fewshot) datasets="imagenet $ten" ;;
    xd) datasets=$ten ;;
    dg) datasets="imagenetv2 imagenet_sketch imagenet_a imagenet_r" ;;
    lodo | openclass) datasets=$(printf 'domainbed_%s ' $domain_sets) ;;
    *) fail "unknown protocol $protocol; known: base2new xd dg fewshot lodo openclass" ;;
esac
datasets=${DATASETS:-$datasets}
case $protocol in
    xd | dg) trained_on=${SOURCE:-imagenet} ;;
    *) trained_on=$datasets ;;
esac
[ -n "$dry_run" ] || require_data
require_trainer "$method"
require_seeds "$SEEDS"
for dataset in $datasets; do require_dataset "$dataset"; done
for dataset in $trained_on; do
    cfg=${CFG:-$(default_cfg "$method" "$dataset" "$protocol")}
    [ -f "configs/trainers/$method/$cfg.yaml" ] ||
        fail "no recipe configs/trainers/$method/$cfg.yaml for $protocol on $dataset"
done
if [ -z "$dry_run" ]; then # better now than after hours, when its turn comes
    missing=$(python scripts/data.py --root "$DATA" missing $trained_on $datasets)
    [ -z "$missing" ] || fail "not in DATA=$DATA: ${missing//$'\n'/ }. Get them" \
        "(python scripts/data.py download NAME), or name those to run: DATASETS=\"caltech101 dtd\""
fi

# The scripts below read OUTPUT and SHOTS themselves, with their own defaults.
export OUTPUT=$given_output TABLE=no
if [ -n "$given_shots" ]; then export SHOTS=$given_shots; else unset SHOTS; fi

step() {
    printf 'bash scripts/%s' "$1"
    for word in "${@:2}"; do
        case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    echo
    [ -n "$dry_run" ] || bash "scripts/$1" "${@:2}"
}

case $protocol in
    base2new)
        for seed in $SEEDS; do
            for dataset in $datasets; do
                step base2new_train.sh "$method" "$dataset" "$seed" "$@"
                step base2new_test.sh "$method" "$dataset" "$seed" "$@"
            done
        done
        ;;
    xd | dg)
        for seed in $SEEDS; do
            step xd_train.sh "$method" "$seed" "$@"
            for dataset in $datasets; do
                step "${protocol}_test.sh" "$method" "$dataset" "$seed" "$@"
            done
        done
        ;;
    *)
        for dataset in $datasets; do
            step "$protocol.sh" "$method" "$dataset" "$SEEDS" "$@"
        done
        ;;
esac
summary=("$OUTPUT${BACKBONE:+/$BACKBONE}" --protocol "$protocol" --trainer "$method" --against)
echo "python scripts/summarize.py ${summary[*]}"
[ -n "$dry_run" ] || python scripts/summarize.py "${summary[@]}"
