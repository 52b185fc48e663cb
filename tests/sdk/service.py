"""A `retinker local` process."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

KEY = "tml-sdk-tests"


class Service:
    """One data directory, served by one process after the other, always at the same address."""

    def __init__(self, directory: Path, *options: str):
        self.directory = directory
        self.options = options
        self.port = 0
        self.url = ""
        self.process: subprocess.Popen | None = None
        self.log = directory / "service.log"
        self.start()

    def start(self) -> None:
        assert self.process is None, "it runs already"
        binary = os.environ["RETINKER_BIN"]
        arguments = [
            "local",
            "--port",
            str(self.port),
            "--data-dir",
            str(self.directory / "data"),
            *self.options,
        ]
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            text = self.log.read_text(errors="replace")[said:]
            if address := re.search(r"http://127\.0\.0\.1:(\d+)", text):
                self.url, self.port = address.group(0), int(address.group(1))
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the service did not start:\n{self.log.read_text(errors='replace')}")

    def kill(self) -> None:
        """As a power cut would: nothing is written any more."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        code = self._end(signal.SIGTERM)
        assert code == 0, f"the service ended with {code}:\n{self.log.read_text(errors='replace')}"

    def _end(self, how: signal.Signals) -> int:
        process, self.process = self.process, None
        assert process is not None, "it does not run"
        process.send_signal(how)
        try:
            return process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"the service did not end after {how.name}") from None
