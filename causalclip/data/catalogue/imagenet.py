"""ImageNet and the four variants that prompt learning is tested on."""

from __future__ import annotations

from causalclip.data.catalogue.facts import Download, Facts
from causalclip.files.download import Known

# CoOp's names of the classes; one file for all five.
CLASSNAMES = Download("classnames.txt", drive="1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF")

IMAGENET = (
    Facts(
        name="ImageNet",
        config="imagenet",
        folder="imagenet",
        classes=1000,
        sizes=(1281167, None, 50000),
        layout="imagenet",
        protocols=("base2new", "fewshot"),
        image_dir="images",
        gigabytes=155,
        licence="non-commercial research, on request",
        page="https://image-net.org/download.php",
        downloads=(CLASSNAMES,),
        by_hand=(
            "Ask for access on the page, get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, "
            "and unpack them to imagenet/images/train/nXXXXXXXX/ and imagenet/images/val/nXXXXXXXX/"
            " (val sorted into class folders as well)."
        ),
    ),
    Facts(
        name="ImageNetV2",
        config="imagenetv2",
        folder="imagenetv2",
        classes=1000,
        sizes=(None, None, 10000),
        layout="imagenet",
        protocols=("dg",),
        image_dir="imagenetv2-matched-frequency-format-val",
        gigabytes=1.3,
        licence="MIT",
        page="https://github.com/modestyachts/ImageNetV2",
        downloads=(
            Download(
                "imagenetv2-matched-frequency.tar.gz",
                # Where the owners' README points since their bucket is gone; the checksum is
                # TensorFlow Datasets' (datasets/imagenet_v2/checksums.tsv) and the host's own.
                url=(
                    "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/"
                    "d626240be2538720e83103a0e1178d24aca8b12c/imagenetv2-matched-frequency.tar.gz"
                ),
                known=Known(
                    sha256="f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c"
                ),
                unpack=True,
            ),
            CLASSNAMES,
        ),
    ),
    Facts(
        name="ImageNetSketch",
        config="imagenet_sketch",
        folder="imagenet-sketch",
        classes=1000,
        sizes=(None, None, 50889),
        layout="imagenet",
        protocols=("dg",),
        image_dir="images",
        gigabytes=7.5,
        licence="MIT",
        page="https://github.com/HaohanWang/ImageNet-Sketch",
        downloads=(
            Download(
                "ImageNet-Sketch.zip",
                drive="1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA",
                unpack=True,
                move=(("sketch", "images"),),
            ),
            CLASSNAMES,
        ),
    ),
    Facts(
        name="ImageNetA",
        config="imagenet_a",
        folder="imagenet-adversarial",
        classes=200,
        sizes=(None, None, 7500),
        layout="imagenet",
        protocols=("dg",),
        image_dir="imagenet-a",
        gigabytes=0.7,
        licence="MIT",
        page="https://github.com/hendrycks/natural-adv-examples",
        downloads=(
            Download(
                "imagenet-a.tar",
                url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
                known=Known(md5="c3e55429088dc681f30d81f4726b6595"),
                unpack=True,
            ),
            CLASSNAMES,
        ),
    ),
    Facts(
        name="ImageNetR",
        config="imagenet_r",
        folder="imagenet-rendition",
        classes=200,
        sizes=(None, None, 30000),
        layout="imagenet",
        protocols=("dg",),
        image_dir="imagenet-r",
        gigabytes=2.2,
        licence="MIT",
        page="https://github.com/hendrycks/imagenet-r",
        downloads=(
            Download(
                "imagenet-r.tar",
                url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
                known=Known(md5="a61312130a589d0ca1a8fca1f2bd3337"),
                unpack=True,
            ),
            CLASSNAMES,
        ),
    ),
)
