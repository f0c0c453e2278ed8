"""The five data sets of DomainBed (arXiv 2007.01434), under names that Dassl does not use."""

from __future__ import annotations

from causalclip.data.catalogue.facts import Download, Facts

VISDA = "http://csr.bu.edu/ftp/visda/2019/multi-source"
LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
PROTOCOLS = ("lodo", "openclass")

DOMAINBED = (
    Facts(
        name="DomainBedPACS",
        config="domainbed_pacs",
        folder="PACS",
        classes=7,
        images=9991,
        also_in=("pacs/images",),
        layout="domains",
        protocols=PROTOCOLS,
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
        layout="domains",
        protocols=PROTOCOLS,
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
        also_in=("office_home_dg",),
        layout="domains",
        protocols=PROTOCOLS,
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
        layout="domains",
        protocols=PROTOCOLS,
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
        layout="domains",
        protocols=PROTOCOLS,
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
