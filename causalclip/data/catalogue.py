"""What is known about every data set: facts only, for reading, checking and downloading.

Sizes are those of CoOp's appendix and of the sets' own papers; archives and checksums those of the
owners' pages and of torchvision. Figures in gigabytes are rounded.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Download:
    """One file to fetch: from a URL or a Google Drive id, and what becomes of it."""

    file: str
    """Where it goes, relative to the set's folder."""
    url: str = ""
    drive: str = ""
    unpack: bool = False
    """Whether it is an archive to unpack into the set's folder."""
    move: tuple[tuple[str, str], ...] = ()
    """What to move afterwards, from and to, relative to the set's folder; "." is that folder."""
    md5: str = ""


@dataclass(frozen=True)
class Facts:
    """One data set: its name in the registry, its folder below the root, and what is published."""

    name: str
    folder: str
    classes: int
    sizes: tuple[int | None, int | None, int | None] = (None, None, None)
    """Images in train, val and test, where a split is published."""
    images: int | None = None
    """All images, where no split is published."""
    domains: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    """The class folders in alphabetical order, where they are few."""
    image_dir: str = ""
    split_file: str = ""
    gigabytes: float | None = None
    licence: str = ""
    page: str = ""
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""
    """What a person has to do, where a program cannot or may not."""
    config: str = ""
    """The file in configs/datasets/, without .yaml."""

    @property
    def total(self) -> int | None:
        """The number of images of all parts."""
        counted = [size for size in self.sizes if size]
        return self.images or sum(counted) or None


VGG = "https://www.robots.ox.ac.uk/~vgg/data"
VISDA = "http://csr.bu.edu/ftp/visda/2019/multi-source"
LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
CLASSNAMES = "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF"


def _classnames() -> Download:
    return Download("classnames.txt", drive=CLASSNAMES)


RECOGNITION = (
    Facts(
        name="ImageNet",
        config="imagenet",
        folder="imagenet",
        classes=1000,
        sizes=(1281167, None, 50000),
        image_dir="images",
        gigabytes=155,
        licence="non-commercial research, on request",
        page="https://image-net.org/download.php",
        downloads=(_classnames(),),
        by_hand=(
            "Ask for access on the page, get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, "
            "and unpack them to imagenet/images/train/nXXXXXXXX/ and imagenet/images/val/nXXXXXXXX/"
            " (val sorted into class folders as well)."
        ),
    ),
    Facts(
        name="Caltech101",
        config="caltech101",
        folder="caltech-101",
        classes=100,
        sizes=(4128, 1649, 2465),
        image_dir="101_ObjectCategories",
        split_file="split_zhou_Caltech101.json",
        gigabytes=0.14,
        licence="CC BY 4.0",
        page="https://data.caltech.edu/records/mzrjq-6wc02",
        downloads=(
            Download(
                "caltech-101.zip",
                url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                md5="3138e1922a9193bfa496528edbbc45d0",
                unpack=True,
                move=(("caltech-101", "."),),
            ),
            Download("101_ObjectCategories.tar.gz", unpack=True),  # was in the one above
            Download("split_zhou_Caltech101.json", drive="1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
        ),
    ),
    Facts(
        name="OxfordPets",
        config="oxford_pets",
        folder="oxford_pets",
        classes=37,
        sizes=(2944, 736, 3669),
        image_dir="images",
        split_file="split_zhou_OxfordPets.json",
        gigabytes=0.8,
        licence="CC BY-SA 4.0",
        page=f"{VGG}/pets/",
        downloads=(
            Download(
                "images.tar.gz",
                url=f"{VGG}/pets/data/images.tar.gz",
                md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
                unpack=True,
            ),
            Download(
                "annotations.tar.gz",
                url=f"{VGG}/pets/data/annotations.tar.gz",
                md5="95a8c909bbe2e81eed6a22bccdf3f68f",
                unpack=True,
            ),
            Download("split_zhou_OxfordPets.json", drive="1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
        ),
    ),
    Facts(
        name="StanfordCars",
        config="stanford_cars",
        folder="stanford_cars",
        classes=196,
        sizes=(6509, 1635, 8041),
        split_file="split_zhou_StanfordCars.json",
        gigabytes=1.9,
        licence="non-commercial research",
        page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (dead)",
        downloads=(
            Download("split_zhou_StanfordCars.json", drive="1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),
        ),
        by_hand=(
            "The owner's links are dead. Copies of the images are on Kaggle "
            "(search for Stanford Cars); unpack them to stanford_cars/cars_train/00001.jpg and "
            "stanford_cars/cars_test/00001.jpg. With the split file nothing else is needed."
        ),
    ),
    Facts(
        name="OxfordFlowers",
        config="oxford_flowers",
        folder="oxford_flowers",
        classes=102,
        sizes=(4093, 1633, 2463),
        image_dir="jpg",
        split_file="split_zhou_OxfordFlowers.json",
        gigabytes=0.35,
        licence="none stated",
        page=f"{VGG}/flowers/102/",
        downloads=(
            Download(
                "102flowers.tgz",
                url=f"{VGG}/flowers/102/102flowers.tgz",
                md5="52808999861908f626f3c1f4e79d11fa",
                unpack=True,
            ),
            Download(
                "imagelabels.mat",
                url=f"{VGG}/flowers/102/imagelabels.mat",
                md5="e0620be6f572b9609742df49c70aed4d",
            ),
            Download("cat_to_name.json", drive="1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"),
            Download("split_zhou_OxfordFlowers.json", drive="1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
        ),
    ),
    Facts(
        name="Food101",
        config="food101",
        folder="food-101",
        classes=101,
        sizes=(50500, 20200, 30300),
        image_dir="images",
        split_file="split_zhou_Food101.json",
        gigabytes=5,
        licence="images belong to foodspotting.com",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        downloads=(
            Download(
                "food-101.tar.gz",
                url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                md5="85eeb15f3717b99a5da872d97d918f87",
                unpack=True,
                move=(("food-101", "."),),
            ),
            Download("split_zhou_Food101.json", drive="1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
        ),
    ),
    Facts(
        name="FGVCAircraft",
        config="fgvc_aircraft",
        folder="fgvc_aircraft",
        classes=100,
        sizes=(3334, 3333, 3333),
        image_dir="images",
        gigabytes=2.6,
        licence="non-commercial research",
        page=f"{VGG}/fgvc-aircraft/",
        downloads=(
            Download(
                "fgvc-aircraft-2013b.tar.gz",
                url=f"{VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                unpack=True,
                move=(("fgvc-aircraft-2013b/data", "."),),
            ),
        ),
    ),
    Facts(
        name="SUN397",
        config="sun397",
        folder="sun397",
        classes=397,
        sizes=(15880, 3970, 19850),
        image_dir="SUN397",
        split_file="split_zhou_SUN397.json",
        gigabytes=37,
        licence="none stated",
        page="https://vision.princeton.edu/projects/2010/SUN/",
        downloads=(
            Download(
                "SUN397.tar.gz",
                url="http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
                md5="8ca2778205c41d23104230ba66911c7a",
                unpack=True,
            ),
            Download(
                "Partitions.zip",
                url="https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",
                unpack=True,
            ),
            Download("split_zhou_SUN397.json", drive="1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
        ),
    ),
    Facts(
        name="DescribableTextures",
        config="dtd",
        folder="dtd",
        classes=47,
        sizes=(2820, 1128, 1692),
        image_dir="images",
        split_file="split_zhou_DescribableTextures.json",
        gigabytes=0.6,
        licence="research",
        page=f"{VGG}/dtd/",
        downloads=(
            Download(
                "dtd-r1.0.1.tar.gz",
                url=f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz",
                md5="fff73e5086ae6bdbea199a49dfb8a4c1",
                unpack=True,
                move=(("dtd", "."),),
            ),
            Download(
                "split_zhou_DescribableTextures.json", drive="1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"
            ),
        ),
    ),
    Facts(
        name="EuroSAT",
        config="eurosat",
        folder="eurosat",
        classes=10,
        sizes=(13500, 5400, 8100),
        image_dir="2750",
        split_file="split_zhou_EuroSAT.json",
        gigabytes=0.09,
        licence="MIT",
        page="https://github.com/phelber/eurosat",
        downloads=(
            Download(
                "EuroSAT.zip",
                url=(
                    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                    "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
                ),
                md5="c8fa014336c82ac7804f0398fcb19387",
                unpack=True,
            ),
            Download("split_zhou_EuroSAT.json", drive="1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
        ),
    ),
    Facts(
        name="UCF101",
        config="ucf101",
        folder="ucf101",
        classes=101,
        sizes=(7639, 1898, 3783),
        image_dir="UCF-101-midframes",
        split_file="split_zhou_UCF101.json",
        licence="none stated",
        page="https://www.crcv.ucf.edu/data/UCF101.php",
        downloads=(
            Download(
                "UCF-101-midframes.zip", drive="10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O", unpack=True
            ),
            Download("split_zhou_UCF101.json", drive="1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
        ),
    ),
)

IMAGENET_VARIANTS = (
    Facts(
        name="ImageNetV2",
        config="imagenetv2",
        folder="imagenetv2",
        classes=1000,
        sizes=(None, None, 10000),
        image_dir="imagenetv2-matched-frequency-format-val",
        gigabytes=1.3,
        licence="MIT",
        page="https://github.com/modestyachts/ImageNetV2",
        downloads=(
            Download(
                "imagenetv2-matched-frequency.tar.gz",
                url=(
                    "https://s3-us-west-2.amazonaws.com/imagenetv2public/"
                    "imagenetv2-matched-frequency.tar.gz"
                ),
                unpack=True,
            ),
            _classnames(),
        ),
    ),
    Facts(
        name="ImageNetSketch",
        config="imagenet_sketch",
        folder="imagenet-sketch",
        classes=1000,
        sizes=(None, None, 50889),
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
            _classnames(),
        ),
    ),
    Facts(
        name="ImageNetA",
        config="imagenet_a",
        folder="imagenet-adversarial",
        classes=200,
        sizes=(None, None, 7500),
        image_dir="imagenet-a",
        gigabytes=0.7,
        licence="MIT",
        page="https://github.com/hendrycks/natural-adv-examples",
        downloads=(
            Download(
                "imagenet-a.tar",
                url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
                md5="c3e55429088dc681f30d81f4726b6595",
                unpack=True,
            ),
            _classnames(),
        ),
    ),
    Facts(
        name="ImageNetR",
        config="imagenet_r",
        folder="imagenet-rendition",
        classes=200,
        sizes=(None, None, 30000),
        image_dir="imagenet-r",
        gigabytes=2.2,
        licence="MIT",
        page="https://github.com/hendrycks/imagenet-r",
        downloads=(
            Download(
                "imagenet-r.tar",
                url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
                md5="a61312130a589d0ca1a8fca1f2bd3337",
                unpack=True,
            ),
            _classnames(),
        ),
    ),
)

DOMAINBED = (
    Facts(
        name="DomainBedPACS",
        config="domainbed_pacs",
        folder="PACS",
        classes=7,
        images=9991,
        domains=("art_painting", "cartoon", "photo", "sketch"),
        class_names=("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
        gigabytes=0.2,
        licence="research",
        page="http://www.eecs.qmul.ac.uk/~dl307/project_iccv2017",
        downloads=(
            Download(
                "PACS.zip",
                drive="1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd",
                unpack=True,
                move=(("kfold", "."),),
            ),
        ),
    ),
    Facts(
        name="DomainBedVLCS",
        config="domainbed_vlcs",
        folder="VLCS",
        classes=5,
        images=10729,
        domains=("Caltech101", "LabelMe", "SUN09", "VOC2007"),
        class_names=("bird", "car", "chair", "dog", "person"),
        gigabytes=3.6,
        licence="none stated",
        page="http://www.eecs.qmul.ac.uk/~dl307/project_iccv2017",
        downloads=(
            Download(
                "VLCS.tar.gz",
                drive="1skwblH1_okBwxWxmRsp9_qi15hyPpxg8",
                unpack=True,
                move=(("VLCS", "."),),
            ),
        ),
    ),
    Facts(
        name="DomainBedOfficeHome",
        config="domainbed_office_home",
        folder="office_home",
        classes=65,
        images=15588,
        domains=("Art", "Clipart", "Product", "Real World"),
        gigabytes=1.1,
        licence="non-commercial research",
        page="https://www.hemanthdv.org/officeHomeDataset.html",
        downloads=(
            Download(
                "office_home.zip",
                drive="1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC",
                unpack=True,
                move=(("OfficeHomeDataset_10072016", "."),),
            ),
        ),
    ),
    Facts(
        name="DomainBedTerraIncognita",
        config="domainbed_terra_incognita",
        folder="terra_incognita",
        classes=10,
        images=24788,
        domains=("location_100", "location_38", "location_43", "location_46"),
        class_names=(
            "bird",
            "bobcat",
            "cat",
            "coyote",
            "dog",
            "empty",
            "opossum",
            "rabbit",
            "raccoon",
            "squirrel",
        ),
        gigabytes=6,
        licence="CDLA-Permissive 1.0",
        page="https://lila.science/datasets/caltech-camera-traps",
        downloads=(
            Download(
                "eccv_18_all_images_sm.tar.gz",
                url=f"{LILA}/eccv_18_all_images_sm.tar.gz",
                unpack=True,
            ),
            Download(
                "eccv_18_annotations.tar.gz", url=f"{LILA}/eccv_18_annotations.tar.gz", unpack=True
            ),
        ),
        by_hand=(
            "Papers count 24,788 images; the owner's files of today give 24,330. `download` sorts "
            "locations 38, 43, 46 and 100 into location_<n>/<class>/."
        ),
    ),
    Facts(
        name="DomainBedDomainNet",
        config="domainbed_domain_net",
        folder="domain_net",
        classes=345,
        images=586575,
        domains=("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
        gigabytes=17,
        licence="fair use, non-commercial research",
        page="http://ai.bu.edu/M3SDA/",
        downloads=tuple(
            Download(f"{domain}.zip", url=f"{VISDA}/{folder}{domain}.zip", unpack=True)
            for domain, folder in (
                ("clipart", "groundtruth/"),
                ("infograph", ""),
                ("painting", "groundtruth/"),
                ("quickdraw", ""),
                ("real", ""),
                ("sketch", ""),
            )
        ),
        by_hand=(
            "DomainBed removes duplicated pictures afterwards: get "
            "domainbed/misc/domain_net_duplicates.txt from its repository and delete the files it "
            "names from domain_net/."
        ),
    ),
)

_SCANS = Facts(
    name="HandwrittenDigits",
    config="handwritten_digits",
    folder="handwritten_digits",
    classes=10,
    images=1797,
    domains=("ink", "chalk", "neon", "noisy_paper"),
    licence="CC BY 4.0",
    page="https://archive.ics.uci.edu/dataset/80",
    by_hand="Nothing to do: built below the root on first use.",
)

BUNDLED = (
    _SCANS,
    replace(
        _SCANS,
        name="ColouredDigits",
        config="coloured_digits",
        folder="coloured_digits",
        images=7188,
    ),
    Facts(
        name="CausalShapes",
        config="causal_shapes",
        folder="causal_shapes",
        classes=10,
        domains=("flat", "sketch", "neon", "watercolour"),
        licence="MIT, drawn by this repository",
        page="docs/",
        by_hand=_SCANS.by_hand,
    ),
)

CATALOGUE = {f.name: f for f in (*RECOGNITION, *IMAGENET_VARIANTS, *DOMAINBED, *BUNDLED)}


def facts_of(name: str) -> Facts:
    """Return the facts of a set by its registry name, whatever the case, or by its configuration.

    Raises ValueError with the known names.
    """
    for facts in CATALOGUE.values():
        if name.lower() in (facts.name.lower(), facts.config):
            return facts
    raise ValueError(f"the data set must be one of {', '.join(CATALOGUE)}, got {name!r}")
