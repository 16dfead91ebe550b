"""Packaging. Ranges here say what should work; requirements.txt pins what was tested."""

from pathlib import Path

from setuptools import find_packages, setup

VERSION = Path("gpt1_jax/__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

setup(
    name="gpt1-jax",
    version=VERSION,
    description="GPT-1 (Radford et al. 2018), whole, in JAX and Flax",
    long_description=Path("README.md").read_text(),
    long_description_content_type="text/markdown",
    # The one place that says where the project is published; scripts/badges.py tells the others.
    url="https://github.com/gpt1-jax/gpt1-jax",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # configs/ lies at the root of the source, where it is edited, and travels inside the package.
    packages=[*find_packages(include=["gpt1_jax*"]), "gpt1_jax.configs"],
    package_dir={"gpt1_jax.configs": "configs"},
    package_data={
        "gpt1_jax": ["py.typed"],
        "gpt1_jax.inference": ["*.jinja", "*.js"],
        "gpt1_jax.results": ["*.jinja"],
    },
    entry_points={"console_scripts": ["gpt1 = gpt1_jax.console:main"]},
    install_requires=[
        "jax>=0.10,<0.13",  # what an update removes is known when it is out
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "ml_collections>=1.1",
        "filelock>=4.2,<5",
        "fsspec>=2024.12",  # folders of object stores
        "etils[epath]>=1.12",
        "typing_extensions>=4.12",
        "packaging>=23",  # compares releases with these ranges
        "pydantic>=2.12,<3",
        "numpy>=2.0",
        "sentencepiece>=0.2.1",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "pyarrow>=15",  # tables of Parquet
        "chardet>=7.4,<8",  # names the encoding of text that is not UTF-8
        "tensorboardX>=2.6",
        "tqdm>=4.66",
        # The original text: what cleaned, divided and cut it in 2018, and its fast relative.
        "ftfy>=6.2",
        "spacy>=3.8,<3.9",  # the rules of its tokenizer drift between versions
        "tokenizers>=0.21",
        # Interchange with other tools.
        "safetensors>=0.5",
        "huggingface_hub>=0.30",
        # The report.
        "matplotlib>=3.9",
        "Jinja2>=3.1",
        "markdown-it-py>=3.0",
        # For reading TFDS and the tf.data driver alone. Where TensorFlow is not wanted, install
        # with --no-deps beside the packages above: nothing else imports it.
        'tensorflow-cpu>=2.20; sys_platform == "linux"',
        'tensorflow>=2.20; sys_platform != "linux"',
        "tensorflow-datasets>=4.9.9",
        "importlib_resources>=6",  # what TFDS imports and does not ask for
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda": ["jax[cuda13]"],
        "gcs": ["gcsfs>=2025.3"],  # gs://
        # These two do not admit some of the pins of requirements.txt: without -c (.ci/extras).
        "s3": ["s3fs>=2025.3"],  # s3://
        "beam": ["apache-beam>=2.77"],
        "notebooks": ["jupyterlab>=4"],
        "docs": ["mkdocs-material>=9.6,<10"],  # docs/ as a site (mkdocs.yml)
        "test": [
            "pytest>=8",
            "hypothesis>=6.100",
            "pytest-xdist>=3.6",  # the suite in three processes
            "nbclient>=0.10",  # runs the notebook
            "ipykernel>=6",
            "playwright>=1.49",  # opens the pages, where there is a Chromium
            "mkdocs-material>=9.6,<10",  # builds the site
            "setuptools>=77",  # builds the wheel that the README's commands are tried on
            "ruff>=0.11",
            "mypy>=1.19",
            # The compiler of TPUs, for checks that need no TPU: jax's own pin of it.
            'jax[tpu]; sys_platform == "linux" and platform_machine == "x86_64"',
        ],
    },
    classifiers=["Programming Language :: Python :: 3 :: Only"],
)
