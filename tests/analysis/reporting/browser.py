"""A headless Chromium for tests of the report: one browser a module, its console and its requests on record."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
EXPECTED = os.environ.get("TOKENLAW_EXPECT_CHROMIUM") == "1"
"""Set where the browser was installed for these tests: then its absence fails them."""

needs_chromium = pytest.mark.skipif(
    not EXPECTED and (CHROMIUM is None or DRIVER is None), reason="no chromium with chromedriver on this machine"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--force-prefers-reduced-motion",
)  # fmt: skip


class Browser:
    """A page in Chromium: scripts run in it, what it logged, what it asked the network for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1400, height: int = 900) -> None:
        """Load a file in a window of this many CSS pixels."""
        self.size(width, height)
        self.driver.get(page.as_uri())

    def size(self, width: int, height: int = 900) -> None:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns within the page."""
        return self.driver.execute_script(script, *arguments)

    def mouse(self, x: float, y: float, *, click: bool = False) -> None:
        """Move the mouse to a place of the window, and click there."""
        kinds = ["mouseMoved", *(["mousePressed", "mouseReleased"] if click else [])]
        for kind in kinds:
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **button})

    def press(self, *keys: str) -> None:
        """Keys for whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def logged(self) -> list[str]:
        """Console messages since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Addresses that the page asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def started(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `folder`, closed afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert CHROMIUM is not None and DRIVER is not None, "chromium and chromedriver are expected here and missing"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
