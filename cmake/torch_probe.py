"""Prints what the build needs to know of this interpreter and its torch, separated by semicolons."""

import sysconfig
from pathlib import Path

import torch

version = torch.__version__.split("+")[0]
print(
    ".".join(version.split(".")[:2]),
    Path(torch.__file__).resolve().parent,
    int(torch._C._GLIBCXX_USE_CXX11_ABI),
    sysconfig.get_path("include"),
    sysconfig.get_config_var("EXT_SUFFIX"),
    sep=";",
)
