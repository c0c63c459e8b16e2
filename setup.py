"""Packaging of knee3d. Ranges live here, the tested versions in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "knee3d" / "__init__.py").read_text()).group(1)

setup(
    name="knee3d",
    version=VERSION,
    description="Trustworthy knee cartilage measurement from MRI: three-plane VGG16-UNets, fused in numpy",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["knee3d", "knee3d.*"]),
    package_data={"knee3d": ["py.typed", "report/assets/*"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.8",
        "tensorboard>=2.18",
        "segmentation-models>=1.0.1",
        "numpy>=2.0",
        "scipy>=1.13,<2",
        "scikit-learn>=1.5",
        "scikit-image>=0.24",
        "surface-distance-based-measures>=0.1",
        "opencv-python-headless>=4.10",
        "pydicom>=3.0",
        "pylibjpeg>=2.0",
        "pylibjpeg-libjpeg>=2.1",
        "pylibjpeg-openjpeg>=2.3",
        "pylibjpeg-rle>=2.0",
        "pyjpegls>=1.3",
        "highdicom>=0.26",
        "SimpleITK>=2.4",
        "h5py>=3.11",
        "pyvista>=0.44",
        "matplotlib>=3.9",
        "click>=8.1",
        "pandas>=2.2",
        "tomlkit>=0.13",
        "pydantic>=2.10",
        "rich>=14.1",
        "Jinja2>=3.1",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.18"],
        "ray": ["ray>=2.40"],
        "slurm": ["submitit>=1.5"],
        "onnx": ["tf2onnx>=1.16", "onnxruntime>=1.20", "onnx>=1.16"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "filelock>=3.13",
            "nibabel>=5.2",
            "medpy>=0.5.2",
            "trimesh>=4.6",
            "selenium>=4.20",
            "jsonschema>=4.20",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
        ],
        "lint": ["ruff>=0.6", "mypy>=1.11"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],
    },
    entry_points={"console_scripts": ["knee3d = knee3d.cli:main", "knee3d-train = knee3d.cli:train_main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
