"""Build the C parts: the CFFI shim and the launcher, a program that ships as a file of the package."""

from __future__ import annotations

import os
import runpy
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SHIM = runpy.run_path(str(Path(__file__).resolve().parent / "csrc" / "build_shim.py"))
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")


class Executable(Extension):
    """A program rather than a module: linked as one, and named without a suffix."""


class BuildExt(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        if isinstance(getattr(self, "ext_map", {}).get(fullname), Executable):
            return fullname.replace(".", os.sep)
        return super().get_ext_filename(fullname)

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return [] if isinstance(ext, Executable) else super().get_export_symbols(ext)

    def build_extension(self, ext: Extension) -> None:
        if not isinstance(ext, Executable):
            super().build_extension(ext)
            return
        objects = self.compiler.compile(
            ext.sources,
            output_dir=self.build_temp,
            include_dirs=ext.include_dirs,
            extra_postargs=ext.extra_compile_args,
            depends=ext.depends,
        )
        program = Path(self.get_ext_fullpath(ext.name))
        self.compiler.link_executable(
            objects, program.name, output_dir=str(program.parent), extra_postargs=ext.extra_link_args
        )


launcher = Executable(
    "rampart_seccomp.rampart-seccomp-launch",
    [f"csrc/{name}" for name in SHIM["LAUNCHER"]],
    include_dirs=["csrc"],
    depends=["csrc/launch.h", "csrc/newer.h", "csrc/protocol.h"],
    extra_compile_args=[*SHIM["COMPILE_ARGS"], *SHIM["WARNINGS"], "-fPIE", "-fstack-protector-strong"],
    extra_link_args=["-pie", "-s", "-Wl,-z,relro,-z,now"],
)

setup(
    cffi_modules=["csrc/build_shim.py:ffibuilder"],
    ext_modules=[launcher],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if ABI3 else {},
)
