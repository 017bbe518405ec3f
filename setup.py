"""What setup.cfg cannot say: the compiled kernels and the device profiles travel inside the package."""
import subprocess
import sys

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70, which Python 3.6 is bound to
    from wheel.bdist_wheel import bdist_wheel


class BuildWithKernels(build_py):
    """Compiles the op library first. Without a compiler the package still works, slower, and dance-doctor says so."""

    def run(self):
        try:
            subprocess.check_call(["make", "-s", "-C", "kernels"])
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write("dance_deploy: the op library was not built ({}); pruned work will not be skipped. "
                             "Install make and g++ 9 or newer, then install again.\n".format(error))
        build_py.run(self)


class BinaryDistribution(Distribution):
    """A distribution with machine code in it, though not with extension modules."""

    def has_ext_modules(self):
        return True


class PlatformWheel(bdist_wheel):
    """The library is loaded by ONNX Runtime, not by Python: one wheel serves every Python 3 of the platform."""

    def get_tag(self):
        return ("py3", "none") + bdist_wheel.get_tag(self)[2:]


setup(
    packages=find_packages(include=["dance_deploy", "dance_deploy.*"]) + ["dance_deploy._profiles"],
    package_dir={"dance_deploy._profiles": "profiles"},
    package_data={"dance_deploy._profiles": ["*.json"], "dance_deploy.runtime": ["lib/*.so"]},
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel},
    distclass=BinaryDistribution,
)
