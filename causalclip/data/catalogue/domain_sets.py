"""The five data sets of DomainBed (arXiv 2007.01434), under names that Dassl does not use."""

from __future__ import annotations

from causalclip.data.catalogue.facts import Download, Facts
from causalclip.files.download import Known

# Of PACS, VLCS and Office-Home: github.com/LarsKue/context-aware-domain-generalization
# (src/adaptive_dg/datasets), which fetches the same Drive files; Office-Home's is also that of the
# owner's OfficeHomeDataset_10072016.zip in three more loaders.
VISDA = "https://csr.bu.edu/ftp/visda/2019/multi-source"
LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
# TensorFlow Datasets, image_classification/domainnet/checksums.tsv
DOMAIN_NET = {
    "groundtruth/clipart": "f8f248a3e8bbc9868c523ae24e6601b4c2ad102afc60c0efeb4f3255df22354d",
    "infograph": "891e14f476317e97b6f06d6498c11d0a5b8d0c8b57210765ed9beb072da611fa",
    "groundtruth/painting": "fa47e6d405503ea0286cabd767f176bd30e988b63ddd7b9db16cf030c9770015",
    "quickdraw": "9f37df2a8c3733703dbb35ad9964202a65f675ca30137756457537536b485d84",
    "real": "d7fe010b430c5b510f85d657d38c4a1924822695fabea4fef57bd00dba251d63",
    "sketch": "23a7dbae7016b343e934399beaa8a68728fb5e570ebe2c71df9b75cf91c499fc",
}
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
                known=Known(md5="fd5db817f7cdafeef3bfd525aaf9b42e"),
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
                known=Known(md5="8870171eba660927d9668f4e515928e4"),
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
                known=Known(md5="b1c14819770c4448fd5b6d931031c91c"),
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
                # LILA publishes no checksum; sizes as two loaders on GitHub record them
                known=Known(size=6_492_615_601),
                unpack=True,
            ),
            Download(
                "eccv_18_annotations.tar.gz",
                url=f"{LILA}/eccv_18_annotations.tar.gz",
                known=Known(size=2_997_071),
                unpack=True,
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
            Download(
                f"{path.rpartition('/')[2]}.zip",
                url=f"{VISDA}/{path}.zip",
                known=Known(sha256=sha256),
                unpack=True,
            )
            for path, sha256 in DOMAIN_NET.items()
        ),
        by_hand=(
            "DomainBed removes duplicated pictures afterwards: get "
            "domainbed/misc/domain_net_duplicates.txt from its repository and delete the files it "
            "names from domain_net/."
        ),
    ),
)
