"""CoOp's ten recognition sets other than ImageNet."""

from __future__ import annotations

from causalclip.data.catalogue.facts import Download, Facts
from causalclip.files.download import Known

# CoOp publishes its small files on Google Drive, without checksums. Those beside them are of the
# copies in github.com/linzhiqiu/cross_modal_adaptation (splits/, commit ac9077e); Caltech-101's and
# DTD's are the same bytes in another repository. Food-101's and SUN397's could not be compared.
VGG = "https://www.robots.ox.ac.uk/~vgg/data"
PROTOCOLS = ("base2new", "fewshot", "xd")

RECOGNITION = (
    Facts(
        name="Caltech101",
        config="caltech101",
        folder="caltech-101",
        classes=100,
        sizes=(4128, 1649, 2465),
        name_in_path="folder",
        ignored=("BACKGROUND_Google", "Faces_easy"),
        renamed={
            "airplanes": "airplane",
            "Faces": "face",
            "Leopards": "leopard",
            "Motorbikes": "motorbike",
        },
        protocols=PROTOCOLS,
        image_dir="101_ObjectCategories",
        split_file="split_zhou_Caltech101.json",
        gigabytes=0.14,
        licence="CC BY 4.0",
        page="https://data.caltech.edu/records/mzrjq-6wc02",
        downloads=(
            Download(
                "caltech-101.zip",
                url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                known=Known(md5="3138e1922a9193bfa496528edbbc45d0"),
                unpack=True,
                move=(("caltech-101", "."),),
            ),
            Download("101_ObjectCategories.tar.gz", unpack=True),  # was in the one above
            Download(
                "split_zhou_Caltech101.json",
                drive="1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
                known=Known(
                    sha256="52ce83205ff8ff8a1a18119aad6376120ae35c36e783a984bc560cbf10e73fa5"
                ),
            ),
        ),
    ),
    Facts(
        name="OxfordPets",
        config="oxford_pets",
        folder="oxford_pets",
        classes=37,
        sizes=(2944, 736, 3669),
        template="a photo of a {}, a type of pet.",
        name_in_path="file",
        protocols=PROTOCOLS,
        image_dir="images",
        split_file="split_zhou_OxfordPets.json",
        gigabytes=0.8,
        licence="CC BY-SA 4.0",
        page=f"{VGG}/pets/",
        downloads=(
            Download(
                "images.tar.gz",
                url=f"{VGG}/pets/data/images.tar.gz",
                known=Known(md5="5c4f3ee8e5d25df40f4fd59a7f44e54c"),
                unpack=True,
            ),
            Download(
                "annotations.tar.gz",
                url=f"{VGG}/pets/data/annotations.tar.gz",
                known=Known(md5="95a8c909bbe2e81eed6a22bccdf3f68f"),
                unpack=True,
            ),
            Download(
                "split_zhou_OxfordPets.json",
                drive="1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
                known=Known(
                    sha256="d7f3ffe65b3919f95132e51422894ae18686b83c331fd8c0adcdc3dc2de6301e"
                ),
            ),
        ),
    ),
    Facts(
        name="StanfordCars",
        config="stanford_cars",
        folder="stanford_cars",
        classes=196,
        sizes=(6509, 1635, 8041),
        protocols=PROTOCOLS,
        split_file="split_zhou_StanfordCars.json",
        gigabytes=1.9,
        licence="non-commercial research",
        page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (dead)",
        downloads=(
            Download(
                "split_zhou_StanfordCars.json",
                drive="1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
                known=Known(
                    sha256="40acee7aa65c8e4727a32d90e884b7c3f8960b523422317e163f7af65432959d"
                ),
            ),
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
        template="a photo of a {}, a type of flower.",
        protocols=PROTOCOLS,
        image_dir="jpg",
        split_file="split_zhou_OxfordFlowers.json",
        gigabytes=0.35,
        licence="none stated",
        page=f"{VGG}/flowers/102/",
        downloads=(
            Download(
                "102flowers.tgz",
                url=f"{VGG}/flowers/102/102flowers.tgz",
                known=Known(md5="52808999861908f626f3c1f4e79d11fa"),
                unpack=True,
            ),
            Download(
                "imagelabels.mat",
                url=f"{VGG}/flowers/102/imagelabels.mat",
                known=Known(md5="e0620be6f572b9609742df49c70aed4d"),
            ),
            Download(
                "cat_to_name.json",
                drive="1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0",
                known=Known(
                    sha256="0469f1ad7fe0072d98155c49aa58649d998edbbe3326229003aa5f7228525236"
                ),
            ),
            Download(
                "split_zhou_OxfordFlowers.json",
                drive="1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
                known=Known(
                    sha256="2f50c42fc1a17ca13c271cb4269b1347bdb43d2be672e34f74a4e4cbfbcca794"
                ),
            ),
        ),
    ),
    Facts(
        name="Food101",
        config="food101",
        folder="food-101",
        classes=101,
        sizes=(50500, 20200, 30300),
        template="a photo of {}, a type of food.",
        name_in_path="folder",
        protocols=PROTOCOLS,
        image_dir="images",
        split_file="split_zhou_Food101.json",
        gigabytes=5,
        licence="images belong to foodspotting.com",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        downloads=(
            Download(
                "food-101.tar.gz",
                url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                known=Known(md5="85eeb15f3717b99a5da872d97d918f87"),
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
        layout="lists",
        lists="images_variant_{}.txt",
        template="a photo of a {}, a type of aircraft.",
        protocols=PROTOCOLS,
        image_dir="images",
        gigabytes=2.6,
        licence="non-commercial research",
        page=f"{VGG}/fgvc-aircraft/",
        downloads=(
            Download(
                "fgvc-aircraft-2013b.tar.gz",
                url=f"{VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                # torchvision has none; ten other loaders on GitHub have this one
                known=Known(md5="d4acdd33327262359767eeaa97a4f732"),
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
        name_in_path="path",
        protocols=PROTOCOLS,
        image_dir="SUN397",
        split_file="split_zhou_SUN397.json",
        gigabytes=37,
        licence="none stated",
        page="https://vision.princeton.edu/projects/2010/SUN/",
        downloads=(
            Download(
                "SUN397.tar.gz",
                url="http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
                known=Known(md5="8ca2778205c41d23104230ba66911c7a"),
                unpack=True,
            ),
            Download(
                "Partitions.zip",
                url="https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",
                # torchvision 0.13, prototype/datasets/_builtin/sun397.py
                known=Known(
                    sha256="e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9"
                ),
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
        template="{} texture.",
        name_in_path="folder",
        protocols=PROTOCOLS,
        image_dir="images",
        split_file="split_zhou_DescribableTextures.json",
        gigabytes=0.6,
        licence="research",
        page=f"{VGG}/dtd/",
        downloads=(
            Download(
                "dtd-r1.0.1.tar.gz",
                url=f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz",
                known=Known(md5="fff73e5086ae6bdbea199a49dfb8a4c1"),
                unpack=True,
                move=(("dtd", "."),),
            ),
            Download(
                "split_zhou_DescribableTextures.json",
                drive="1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
                known=Known(
                    sha256="f26ebeccd2b58e68d70f07a0dc39fe49bf7b69024bac34396b954dfd87969c38"
                ),
            ),
        ),
    ),
    Facts(
        name="EuroSAT",
        config="eurosat",
        folder="eurosat",
        classes=10,
        sizes=(13500, 5400, 8100),
        template="a centered satellite photo of {}.",
        name_in_path="folder",
        renamed={
            "AnnualCrop": "Annual Crop Land",
            "Forest": "Forest",
            "HerbaceousVegetation": "Herbaceous Vegetation Land",
            "Highway": "Highway or Road",
            "Industrial": "Industrial Buildings",
            "Pasture": "Pasture Land",
            "PermanentCrop": "Permanent Crop Land",
            "Residential": "Residential Buildings",
            "River": "River",
            "SeaLake": "Sea or Lake",
        },
        protocols=PROTOCOLS,
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
                known=Known(md5="c8fa014336c82ac7804f0398fcb19387"),
                unpack=True,
            ),
            Download(
                "split_zhou_EuroSAT.json",
                drive="1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
                known=Known(
                    sha256="541503a77d0b26b735d85ec7a3e672804fe0aa466c2e5f07da772cc6c0af8ad2"
                ),
            ),
        ),
    ),
    Facts(
        name="UCF101",
        config="ucf101",
        folder="ucf101",
        classes=101,
        sizes=(7639, 1898, 3783),
        template="a photo of a person doing {}.",
        name_in_path="folder",
        protocols=PROTOCOLS,
        image_dir="UCF-101-midframes",
        split_file="split_zhou_UCF101.json",
        licence="none stated",
        page="https://www.crcv.ucf.edu/data/UCF101.php",
        downloads=(
            Download(
                "UCF-101-midframes.zip", drive="10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O", unpack=True
            ),
            Download(
                "split_zhou_UCF101.json",
                drive="1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
                known=Known(
                    sha256="d78cb834f7c5792ceaff2c5ee2d7c76a9e4086e48a3a6b01232989d29cbefdd8"
                ),
            ),
        ),
    ),
)
