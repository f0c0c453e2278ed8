# Sourced by the protocol scripts: the data root, the configuration of a method, one run.
#
#   DATA    folder of the data sets (required)
#   CFG     configuration below configs/trainers/TRAINER/, without .yaml (default: see default_cfg)
#   SHOTS   images per class (default 16)
#   OUTPUT  where everything is written (default output)
#   PROGRESS  brief: one line an epoch on the screen (log.txt has all)
#   SEEDS   seeds of scripts that take several (default "1 2 3")
#   BACKBONE  a file below configs/backbones/, without .yaml, in place of the recipe's own CLIP;
#           results go to $OUTPUT/$BACKBONE

script=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -f .venv/bin/activate ]; then
    . .venv/bin/activate
fi
SHOTS=${SHOTS:-16}
OUTPUT=${OUTPUT:-output}
SEEDS=${SEEDS:-1 2 3}
OUTPUT=$OUTPUT${BACKBONE:+/$BACKBONE}

fail() { echo "$(basename "$0"): $*" >&2; exit 2; }

# The comment at the head of the calling script is its help.
show_help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$script"; exit 0; }

require_data() {
    [ -n "${DATA:-}" ] || fail "DATA is not set: export DATA=/path/to/the/data/sets"
    [ -d "$DATA" ] || fail "DATA=$DATA is not a folder"
}

require_dataset() {
    [ -f "configs/datasets/$1.yaml" ] ||
        fail "unknown data set $1; known: $(configurations configs/datasets)"
}

require_trainer() {
    [ -d "configs/trainers/$1" ] || fail "unknown trainer $1; known: $(
        ls configs/trainers | tr '\n' ' ')"
}

configurations() { (cd "$1" && ls *.yaml | sed 's/\.yaml$//' | tr '\n' ' '); }

require_seed() { [[ $1 =~ ^[0-9]+$ ]] || fail "SEED must be a number, got $1"; }

require_seeds() {
    [[ $1 =~ ^\ *[0-9]+(\ +[0-9]+)*\ *$ ]] ||
        fail "SEEDS must be numbers, got $1 (KEY VALUE pairs come after them)"
}

require_shots() {
    [[ $1 =~ ^[1-9][0-9]*$ ]] ||
        fail "SHOTS must be a positive number of images a class${2:+ or $2}, got $1"
}

# choose_cfg TRAINER DATASET PROTOCOL: sets CFG unless it is set, and checks all that names a file.
choose_cfg() {
    require_trainer "$1"
    CFG=${CFG:-$(default_cfg "$@")}
    [ -f "configs/trainers/$1/$CFG.yaml" ] ||
        fail "unknown CFG $CFG of $1; known: $(configurations "configs/trainers/$1")"
    [ -z "${BACKBONE:-}" ] || [ -f "configs/backbones/$BACKBONE.yaml" ] ||
        fail "unknown BACKBONE $BACKBONE; known: $(configurations configs/backbones)"
}

# default_cfg TRAINER DATASET PROTOCOL: the bundled data run on the bundled CLIP, everything else
# with the recipe that the method was published with for this protocol.
default_cfg() {
    local trainer=$1 dataset=$2 protocol=$3
    case $dataset in
        handwritten_digits* | coloured_digits* | causal_shapes*) tiny_cfg "$trainer"; return ;;
    esac
    case $trainer:$protocol in
        CoOp:base2new)
            if [ "$dataset" = imagenet ]; then echo vit_b16_ep50_ctxv1; else echo vit_b16_ctxv1; fi ;;
        CoOp:fewshot) coop_fewshot_cfg "$dataset" ;;
        CoOp:*) echo vit_b16_ep50_ctxv1 ;;
        CoCoOp:*) echo vit_b16_c4_ep10_batch1_ctxv1 ;;
        MaPLe:base2new | MaPLe:fewshot) echo vit_b16_c2_ep5_batch4_2ctx ;;
        MaPLe:*) echo vit_b16_c2_ep5_batch4_2ctx_cross_datasets ;;
        CDC:base2new | CDC:fewshot) echo vit_b16_m4 ;;
        CDC:*) echo vit_b16_m4_cross_datasets ;;
        PromptSRC:base2new) echo vit_b16_c2_ep20_batch4_4+4ctx ;;
        PromptSRC:fewshot) echo vit_b16_c2_ep50_batch4_4+4ctx_few_shot ;;
        PromptSRC:*) echo vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets ;;
        KgCoOp:*) echo vit_b16_ep100_ctxv1 ;;
        VPT:*) echo vit_b16_c2_ep5_batch4_4 ;;
        IVLP:*) echo vit_b16_c2_ep5_batch4_2+2ctx ;;
        *) echo vit_b16 ;;
    esac
}

# CoOp's paper trains as long as there are images: 50 epochs for one a class, 100 for 2 and 4, else
# 200; on ImageNet always 50.
coop_fewshot_cfg() {
    case $1:$SHOTS in
        imagenet:* | *:1) echo vit_b16_ep50 ;;
        *:2 | *:4) echo vit_b16_ep100 ;;
        *) echo vit_b16 ;;
    esac
}

tiny_cfg() { if [ "$1" = CDC ]; then echo tiny_m4; else echo tiny; fi; }

# read_domains DATASET: the array `domains`, from the data set itself or its folders.
read_domains() {
    local listed
    listed=$(python scripts/domains.py --root "$DATA" "configs/datasets/$1.yaml") || exit # it said why
    mapfile -t domains <<< "$listed"
    [ ${#domains[@]} -ge 2 ] || fail "$1 has fewer than two domains to leave one out of"
}

# sources_for TARGET: the array `sources`, every domain but the target.
sources_for() {
    sources=()
    local domain
    for domain in "${domains[@]}"; do
        [ "$domain" = "$1" ] || sources+=("$domain")
    done
}

# run_once DIR ARGS...: train.py into DIR, unless DIR has its result already.
run_once() {
    local dir=$1; shift
    if [ -f "$dir/results.json" ]; then
        echo "skip (finished): $dir"
        return
    fi
    echo "run: $dir"
    python train.py --root "$DATA" --output-dir "$dir" "$@" | show_progress
}

# PROGRESS=brief shows the last line of each epoch, as it was printed, and the result; log.txt always
# has every line.
show_progress() {
    if [ "${PROGRESS:-}" != brief ]; then
        cat
        return
    fi
    local line last=
    while IFS= read -r line; do
        case $line in
            'epoch ['*)
                # Up to the slash stands the epoch: another one has begun.
                [ -z "$last" ] || [ "${line%%/*}" = "${last%%/*}" ] || echo "$last"
                last=$line
                ;;
            '* accuracy'*)
                [ -z "$last" ] || echo "$last"
                last=
                echo "$line"
                ;;
        esac
    done
    [ -z "$last" ] || echo "$last"
}
