"""The C extension; everything else about the package is in pyproject.toml."""

import sys
from glob import glob

from setuptools import Extension, setup

FLAGS = ["/O2"] if sys.platform == "win32" else ["-O3", "-ffp-contract=off", "-fno-fast-math", "-pthread"]

setup(
    ext_modules=[
        Extension(
            "lmcompress._native",
            sources=sorted(glob("lmcompress/native/*.c")),
            depends=sorted(glob("lmcompress/native/*.h")),
            extra_compile_args=FLAGS,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            optional=True,  # without a compiler the reference engine runs
        )
    ]
)
