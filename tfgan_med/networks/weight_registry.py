"""Pretrained weights that are known: files, checksums, addresses, licences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
        file: its name.
        size: of the file in bytes; of the member if there is one.
        algorithm, digest: checksum of the file, of the member if there is one.
        url: where it is published.
        member: name inside the archive.
    """

    file: str
    size: int
    algorithm: Literal["sha256", "md5"]
    digest: str
    url: str
    member: str | None = None


@dataclass(frozen=True)
class Weights:
    """A set of weights that can come from several files.

    Attributes:
        about: what they are for, in a line.
        licence: of the published file.
        stored: file name in our cache folder; `.npz` if the wanted tensors are taken out of a
            PyTorch file or a graph.
        sources: the published files, the preferred one first.
        instead: what to do without them.
        option: the option of commands that takes such a file, if there is one.
    """

    about: str
    licence: str
    stored: str
    sources: tuple[Source, ...]
    instead: str
    option: str = "--weights"


_OTHER_FEATURES = "--features FILE takes another network; its values are named after it."
_OTHER_TRUNK = "--lpips-net squeezenet-caffe or keras-vgg16 gives distances under another name."
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_LPIPS = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1"
)
_GRAPH = "classify_image_graph_def.pb"
_GRAPH_SHA256 = "009d6814d1bc560d4e7b236e170e9b2d5ca6f4b57bd8037f6db05776204415c6"
_PORT_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_SQUEEZENET = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"


def _lpips_trunk(network: str, file: str, size: int, sha256: str) -> Weights:
    """Torchvision's checkpoint: the first eight digits of the checksum stand in its name.

    The other digits and the sizes agree among several public repositories that record them.
    """
    address = f"https://download.pytorch.org/models/{file}"
    return Weights(
        about=f"{network} of torchvision (ImageNet), a trunk of LPIPS",
        licence="BSD-3-Clause (torchvision)",
        stored=f"torchvision-{Path(file).stem}.npz",
        sources=(Source(file, size, "sha256", sha256, address),),
        instead=_OTHER_TRUNK,
        option="--lpips-trunk",
    )


def _lpips_linear(trunk: str, size: int, sha256: str) -> Weights:
    address = f"{_LPIPS}/{trunk}.pth"
    return Weights(
        about=f"linear layers of LPIPS 0.1 for the trunk lpips-{trunk}",
        licence="BSD-2-Clause",
        stored=f"lpips-v0.1-lin-{trunk}.pth",
        sources=(Source(f"{trunk}.pth", size, "sha256", sha256, address),),
        instead=_OTHER_TRUNK,
        option="--lpips-linear",
    )


REGISTRY: dict[str, Weights] = {
    "inception-2015": Weights(
        about="Inception-v3 of 2015, the network of FID, KID and the Inception Score",
        licence="Apache-2.0",
        stored="inception-2015.npz",
        sources=(
            Source(
                "pt_inception-2015-12-05-6726825d.pth",
                95_628_359,
                "sha256",
                _PORT_SHA256,
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
            ),
            Source(  # the same bytes
                "weights-inception-2015-12-05-6726825d.pth",
                95_628_359,
                "sha256",
                _PORT_SHA256,
                "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                "weights-inception-2015-12-05-6726825d.pth",
            ),
            Source(
                _GRAPH,
                95_673_916,
                "sha256",
                _GRAPH_SHA256,
                "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/"
                "classify_image_graph_def.pb",
            ),
            Source(
                "inception-2015-12-05.tgz",
                95_673_916,
                "sha256",
                _GRAPH_SHA256,
                "https://storage.googleapis.com/download.tensorflow.org/models/image/imagenet/"
                "inception-2015-12-05.tgz",
                member=_GRAPH,
            ),
        ),
        instead=_OTHER_FEATURES,
    ),
    "inception-keras": Weights(
        about="Inception-v3 of keras.applications (ImageNet); --protocol keras, never FID",
        licence="Apache-2.0",
        stored="inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        sources=(
            Source(
                "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
                87_910_968,
                "md5",
                "bcbd6486424b2319ff4ef7d526e38f63",
                f"{_KERAS}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ),
        ),
        instead=_OTHER_FEATURES,
    ),
    "vgg16": Weights(
        about="VGG16 of keras.applications (ImageNet, no top): perceptual loss, classifier",
        licence="CC BY 4.0 (Oxford VGG), converted by Keras",
        stored="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        sources=(
            Source(
                "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                58_889_256,
                "md5",
                "6d6bbae143d832006294945121d1f1fc",
                f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ),
        ),
        instead="the L1 loss needs none of them.",
    ),
    "vgg16-top": Weights(
        about="VGG16 of keras.applications with its classifier, for features of the layer fc2",
        licence="CC BY 4.0 (Oxford VGG), converted by Keras",
        stored="vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        sources=(
            Source(
                "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
                553_467_096,
                "md5",
                "64373286793e3c8b2b4e3219cbf3544b",
                f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            ),
        ),
        instead="the weights vgg16 give the features of the last convolution.",
    ),
    "squeezenet": Weights(
        about="SqueezeNet 1.1 (ImageNet, from Caffe, no top), 3 MB: features, classifier",
        licence="MIT (rcmalli/keras-squeezenet); BSD (SqueezeNet)",
        stored="squeezenet-1.1-imagenet-notop.h5",
        sources=(
            Source(
                _SQUEEZENET,
                3_032_184,
                "sha256",
                "2d935d8c102ad1232484a77da8e6fbdf3ff4ab608974a0d8b6283115ffff204f",
                "https://raw.githubusercontent.com/rcmalli/keras-squeezenet/"
                f"8cebee42add4737b9a352ffac6bf8e96c217146d/weights/{_SQUEEZENET}",
            ),
        ),
        instead=_OTHER_FEATURES,
    ),
    "lpips-alex": _lpips_trunk(
        "AlexNet",
        "alexnet-owt-7be5be79.pth",
        244_408_911,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    "lpips-alex-linear": _lpips_linear(
        "alex", 6_009, "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
    ),
    "lpips-vgg": _lpips_trunk(
        "VGG16",
        "vgg16-397923af.pth",
        553_433_881,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    "lpips-vgg-linear": _lpips_linear(
        "vgg", 7_289, "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
    ),
    "lpips-squeeze": _lpips_trunk(
        "SqueezeNet 1.1",
        "squeezenet1_1-b8a52dc0.pth",
        4_958_839,
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
    "lpips-squeeze-linear": _lpips_linear(
        "squeeze", 10_811, "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"
    ),
}
