"""kernels/ort/ort_abi.h against the official onnxruntime_c_api.h, where one is installed or ORT_INCLUDE has one."""
import glob
import os
import re
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ABI = os.path.join(ROOT, "kernels", "ort", "ort_abi.h")
NAME = "onnxruntime_c_api.h"
PLACES = ("/usr/include/onnxruntime/**/", "/usr/local/include/**/", "/opt/onnxruntime*/include/**/")

# Compiled against the official declarations: every line of our lists becomes an assertion. -std=c++14, where
# noexcept is no part of a function's type.
CHECK = """
#include <cstddef>
#include <type_traits>
#include "{header}"
#define DANCE_ORT_OFFICIAL_HEADER
#include "{ours}"

#define SLOT(name, slot, result, arguments) \\
  static_assert(offsetof(OrtApi, name) == slot * sizeof(void*), "slot of " #name); \\
  static_assert(std::is_same<decltype(OrtApi::name), result(*) arguments>::value, "signature of " #name);
DANCE_ORT_SLOTS(SLOT)

struct Ours {{
  uint32_t version;
#define FIELD(name, result, arguments) result(*name) arguments;
  DANCE_ORT_CUSTOM_OP(FIELD)
}};
#define OFFSET(name, result, arguments) \\
  static_assert(offsetof(Ours, name) == offsetof(OrtCustomOp, name), "offset of " #name); \\
  static_assert(std::is_same<decltype(Ours::name), decltype(OrtCustomOp::name)>::value, "signature of " #name);
DANCE_ORT_CUSTOM_OP(OFFSET)

#define VALUE(type, name, value) \\
  static_assert(int(name) == value, "value of " #name); \\
  static_assert(sizeof(type) == sizeof(int), "size of " #type);
DANCE_ORT_ENUMS(VALUE)

static_assert(offsetof(OrtApiBase, GetApi) == 0, "GetApi");
static_assert(offsetof(OrtApiBase, GetVersionString) == sizeof(void*), "GetVersionString");
int main() {{}}
"""


def official_header():
    if os.environ.get("ORT_INCLUDE"):
        return os.path.join(os.environ["ORT_INCLUDE"], NAME)
    found = [path for place in PLACES for path in glob.glob(place + NAME, recursive=True)]
    return found[0] if found else None


def compile_check(tmp_path, ours, header):
    source = tmp_path / "check.cc"
    source.write_text(CHECK.format(header=header, ours=ours), encoding="ascii")
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no compiler {compiler}")
    return subprocess.run([compiler, "-std=c++14", "-fsyntax-only", "-w", str(source)], stderr=subprocess.PIPE,
                          encoding="utf-8", timeout=60)


@pytest.fixture(scope="module")
def header():
    path = official_header()
    if path is None:
        pytest.skip(f"no {NAME} here (Debian: libonnxruntime-dev; or set ORT_INCLUDE)")
    with open(path, encoding="utf-8") as official:
        offered = int(re.search(r"#define ORT_API_VERSION (\d+)", official.read()).group(1))
    with open(ABI, encoding="ascii") as ours:
        newest = max(map(int, re.findall(r"#define DANCE_ORT_\w+_API (\d+)", ours.read())))
    if offered < newest:
        pytest.skip(f"{path} is of version {offered}, and some of our slots came with {newest}")
    return path


def test_our_declarations_are_the_official_ones(tmp_path, header):
    done = compile_check(tmp_path, ABI, header)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("before, after", [
    ("X(CustomOpDomain_Add, 27,", "X(CustomOpDomain_Add, 26,"),
    ("X(GetDimensionsCount, 61, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, size_t*))",
     "X(GetDimensionsCount, 61, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, int64_t*))"),
    ("X(GetOutputTypeCount, size_t,", "X(GetOutputTypeCount, int,"),
    ("ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 9)", "ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 8)"),
])
def test_a_wrong_declaration_is_found(tmp_path, header, before, after):
    with open(ABI, encoding="ascii") as file:
        text = file.read()
    assert before in text
    wrong = tmp_path / "wrong_abi.h"
    wrong.write_text(text.replace(before, after), encoding="ascii")
    assert compile_check(tmp_path, wrong, header).returncode != 0
