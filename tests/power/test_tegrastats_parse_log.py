"""parse_log: one JSON object a sample, whole files or none, everything odd said."""
import io
import json

import pytest
from tegrastats_lines import LINES

from dance_deploy.errors import InputError, OperationError
from dance_deploy.power.parse_log import json_from_line, lines_of, parse_log
from dance_deploy.power.tegrastats import LONGEST_LINE


def written(tmp_path, text):
    path = tmp_path / "a.log"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_samples_become_objects_and_the_rest_is_counted(tmp_path):
    lines = [each[0] for each in LINES.values()]
    log = written(tmp_path, "[sudo] password for nvidia:\n\n" + "\n".join(lines) + "\n\xff\xfe binary\n" + lines[-1])
    said = io.StringIO()
    found = parse_log(log, str(tmp_path / "a.json"), stderr=said)
    objects = [json.loads(line) for line in (tmp_path / "a.json").read_text().splitlines()]
    assert objects == [json_from_line(line) for line in lines + lines[-1:]]
    assert (found.samples, found.skipped, found.first_skipped) == (len(lines) + 1, 2, 1)
    assert f"{len(lines) + 1} samples, 2 lines without one (the first is line 1)" in said.getvalue()


def test_stdin_and_stdout(tmp_path):
    line = LINES["nano r32"][0]
    given, printed = io.TextIOWrapper(io.BytesIO((line + "\n").encode())), io.StringIO()
    parse_log("-", "-", stdin=given, stdout=printed, stderr=io.StringIO())
    assert json.loads(printed.getvalue()) == json_from_line(line) and not given.closed


def test_odd_rails_are_said_once_with_their_line(tmp_path):
    permuted = "RAM 1/2MB CPU [0%@1] POM_5V_IN 3000/3000 POM_5V_GPU 8000/8000 POM_5V_CPU 1000/1000\n"
    unknown = "RAM 1/2MB CPU [0%@1] VDD_FOO 3000/3000\n"
    said = io.StringIO()
    log = written(tmp_path, LINES["nano r32"][0] + "\n" + permuted * 5 + unknown * 5)
    parse_log(log, str(tmp_path / "o"), stderr=said)
    assert said.getvalue().count("permuted") == 1 and "line 2: rail POM_5V_IN reads 3000 mW" in said.getvalue()
    assert said.getvalue().count("there are VDD_FOO") == 1 and "line 7: " in said.getvalue()


@pytest.mark.parametrize("data, why", [
    (b"", "is empty"), (b"\n", "is empty"), (b"hello\nworld\n", "none of its 2 lines"), (b"\0" * 99999, "none of its")])
def test_what_is_no_log_is_one_line_and_leaves_no_file(tmp_path, data, why):
    with pytest.raises(InputError, match=why):
        parse_log(written(tmp_path, data), str(tmp_path / "out.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        parse_log(str(tmp_path / "absent"))
    with pytest.raises(OperationError, match="cannot write"):
        parse_log(written(tmp_path, LINES["nano r32"][0]), str(tmp_path / "no" / "out.json"))


def test_a_file_that_was_there_stays_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "out.json").write_text("old")
    with pytest.raises(InputError):
        parse_log(written(tmp_path, "nothing\n"), str(tmp_path / "out.json"))
    assert (tmp_path / "out.json").read_text() == "old"


def test_a_line_without_end_is_one_line_and_takes_no_memory(tmp_path):
    line = LINES["nano r32"][0].encode()
    (tmp_path / "a.log").write_bytes(line + b"\n" + b"x" * 3000000 + b"\n" + line + b"\n")
    found = parse_log(str(tmp_path / "a.log"), str(tmp_path / "out"), stderr=io.StringIO())
    assert (found.samples, found.skipped, found.first_skipped) == (2, 1, 2)
    with open(str(tmp_path / "a.log"), "rb") as stream:
        assert max(map(len, lines_of(stream))) <= LONGEST_LINE + 1


def test_a_log_is_not_replaced_by_its_json(tmp_path):
    log = written(tmp_path, LINES["nano r32"][0])
    with pytest.raises(InputError, match="would be replaced"):
        parse_log(log, str(tmp_path) + "/./a.log")
    assert (tmp_path / "a.log").read_text() == LINES["nano r32"][0]
