"""A peer in a process of its own that answers one line of text by one line of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from dance_deploy.errors import InputError, OperationError

_PATIENCE_S = 5.0  # for a process whose input has ended


class PeerProcess:
    """`python -m module arguments`; ends with `close` or when this object's user does."""

    def __init__(self, module: str, peer: str, *arguments: str) -> None:
        self.peer = peer
        # a session of its own: Ctrl-C in a terminal reaches us alone, and we end it
        self._process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True, start_new_session=True)

    def ask(self, line: str) -> dict[str, Any]:
        """Send one line, return the answer; raises InputError or OperationError where the process says so or dies."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said before it died is read below
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that the process prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {}
        if "error" in answer:
            self.close()
            raise (InputError if answer["exit_code"] == 2 else OperationError)(answer["error"])
        if not answer:
            raise OperationError(f"the peer '{self.peer}' ended without an answer (exit code {self._process.wait()})")
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # what it started as well
            self._process.wait()
