"""A headless Chromium that tests drive over a pipe, in the words of its DevTools protocol."""

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time

from conftest import missing_program

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"),
)
PATIENCE = 300  # seconds that an answer may take


class Browser:
    """One empty tab. folder: where the browser may keep what it keeps. To be closed."""

    def __init__(self, folder):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not program:
            missing_program("no Chromium found; install it with: apt-get install chromium", "REQUIRE_BROWSER")
        theirs, self.out = (_high(end) for end in os.pipe())
        self.input, back = (_high(end) for end in os.pipe())

        def pipe():  # the browser reads number 3 and writes number 4
            os.dup2(theirs, 3)
            os.dup2(back, 4)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=pipe, close_fds=False,
        )  # fmt: skip
        os.close(theirs)
        os.close(back)
        self.numbers, self.events, self.rest, self.session = itertools.count(1), [], b"", {}
        try:
            page = self.send("Target.createTarget", url="about:blank")["targetId"]
            self.session = {"sessionId": self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]}
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.input)

    def send(self, method, **parameters):
        """The answer to a command. Events that come before it are kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters, **self.session}
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self.out, data) :]
        until = time.monotonic() + PATIENCE
        while (answer := self._next(until)).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self, until):
        while b"\0" not in self.rest:
            ready, *_ = select.select([self.input], [], [], max(0, until - time.monotonic()))
            assert ready, f"no answer from the browser in {PATIENCE} s"
            found = os.read(self.input, 1 << 20)
            assert found, "the browser has ended"
            self.rest += found
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path, width, *, dark=False, height=900):
        """Show a file at a width in pixels, as a phone does below 600, in light or dark colours."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        self.media("screen", dark)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        until = time.monotonic() + PATIENCE
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next(until))

    def media(self, media, dark=False):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def run(self, script):
        """The value of an expression of JavaScript, plain data; of a promise what it comes to."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def complaints(self):
        """What the console has said since the page was opened, and what was asked of other files than the page."""
        found = []
        for event in self.events:
            about = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    found.append(about["exceptionDetails"]["text"])
                case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                    found.append(str([argument.get("value") for argument in about["args"]]))
                case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                    found.append(about["entry"]["text"])
                case "Network.requestWillBeSent" if about["type"] != "Document":
                    if not about["request"]["url"].startswith("data:"):
                        found.append(f"asks for {about['request']['url'][:100]}")
        return found


def _high(end):
    """An end of a pipe above the numbers 3 and 4."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved
