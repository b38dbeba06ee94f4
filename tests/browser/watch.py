#!/usr/bin/env python3
"""Watches a whole run in a real browser, as a user would.

    watch.py --node BINARY --gpkg FILE --scenes DIR --out DIR [--shots DIR]

Starts a server of scenes of which one tile is broken and `node --role all` with its page, opens the page in headless Chromium,
sees the counts grow until every class has its target, follows a failed cell of the map to its reason by keyboard, and looks
at the page on a phone, in the dark, and without scripts. --shots keeps pictures of it all. Prints what it saw; any
difference ends it with exit code 1.
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = 240


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait(what, check, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen = check()
        if seen:
            return seen
        time.sleep(0.05)
    sys.exit(f"waited {seconds} s in vain for {what}")


def expect(truth, what):
    if not truth:
        sys.exit(f"not so: {what}")


def spoil(scenes, to):
    """A copy of the scenes, by links, in which the red band and the classification of every scene of the western tile hold
    no image: what its parcels need cannot even be found cloudy, so their tasks fail."""
    shutil.copytree(scenes, to, copy_function=lambda a, b: pathlib.Path(b).hardlink_to(a))
    broken = [f for name in ("B04", "SCL") for f in pathlib.Path(to).rglob(f"{name}.tif") if "30TYM" in str(f)]
    expect(broken, "there are scenes of tile 30TYM")
    for file in broken:
        file.unlink()
        file.write_bytes(b"this is no image" * 4096)


class Run:
    """The processes of a run."""

    def __init__(self, args):
        self.out = pathlib.Path(args.out)
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        self.started = []
        spoil(args.scenes, self.out / "scenes")
        stac, self.port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start(args.node, "serve", self.out / "scenes", "--listen", f"127.0.0.1:{stac}")
        # Far enough away for a run that can be watched.
        slow = ["curl", "-sf", "--output", self.out / "config.json", f"http://127.0.0.1:{stac}/__config?latency_ms=20"]
        wait("the server of scenes", lambda: subprocess.run(slow, check=False).returncode == 0)
        probs = "{ 1 = 0.05, 2 = 0.15, 3 = 0.3, 4 = 0.05, 5 = 0.04, 6 = 0.25, 7 = 1.0, 8 = 0.1 }"
        settings = {
            "parcels.path": args.gpkg, "stac.url": f"http://127.0.0.1:{stac}", "output.dir": self.out / "dataset",
            "monitor.listen": f"127.0.0.1:{self.port}", "monitor.interval_s": "0.2", "monitor.ui": "json",
            "grid.step": "0.02", "sampling.probabilities": probs, "sampling.conversion_rate": "0.1",
            "worker.cores": "1", "worker.chips_in_flight": "1", "worker.tasks_in_flight": "1", "imagery.retries": "0",
        }
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.node = self.start(args.node, "--role", "all", *sets)

    def start(self, *words):
        log = open(self.out / f"log{len(self.started)}.txt", "w")
        process = subprocess.Popen([str(w) for w in words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def api(self, path):
        expect(self.node.poll() is None, f"the node lives; see {self.out}/log1.txt")
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)

    def stop(self):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
        for process in self.started:
            process.wait(60)


class Browser:
    """Headless Chromium."""

    def __init__(self, shots):
        options = webdriver.ChromeOptions()
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
            options.add_argument(word)
        options.binary_location = shutil.which("chromium") or sys.exit("chromium is missing")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = shutil.which("chromedriver") or sys.exit("chromium-driver is missing")
        self.web = webdriver.Chrome(options=options, service=Service(driver))
        self.shots = shots
        self.size(1280, 900)

    def size(self, width, height, phone=False):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.web.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.web.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def scripts(self, on):
        self.web.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not on})

    def text(self, selector):
        """What is there to read; empty while a panel is being replaced."""
        return self.web.execute_script("return document.querySelector(arguments[0])?.innerText || ''", selector)

    def shot(self, name):
        if self.shots:
            pathlib.Path(self.shots).mkdir(parents=True, exist_ok=True)
            self.web.save_screenshot(str(pathlib.Path(self.shots) / f"{name}.png"))

    def whole(self, name):
        """The page from top to bottom."""
        self.size(1280, self.web.execute_script("return document.documentElement.scrollHeight"))
        time.sleep(0.5)
        self.shot(name)
        self.size(1280, 900)

    def complaints(self):
        return [entry["message"] for entry in self.web.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def fits(self):
        wide = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        scroll, client = self.web.execute_script(wide)
        return scroll <= client


def chips_shown(browser):
    """Chips on the page, or None while there is no number."""
    number = re.search(r"Chips\s+([\d\u202f]+)", browser.text("#summary"))
    return int(number[1].replace("\u202f", "")) if number else None


def watch(run, browser):
    wait("the page", lambda: subprocess.run(["curl", "-sf", run.url], capture_output=True, check=False).returncode == 0)
    browser.web.get(run.url)
    browser.shot("desktop-empty")
    wait("a live page", lambda: browser.text("#link span") == "live", 30)
    seen, middle = [], False
    while True:
        chips = chips_shown(browser)
        if chips is not None and (not seen or chips != seen[-1]):
            seen.append(chips)
        progress = run.api("progress")
        if not middle and progress["tasks_planned"] and progress["tasks_done"] * 2 > progress["tasks_planned"]:
            middle = True
            time.sleep(1)
            browser.shot("desktop-running")
        if progress["complete"]:
            break
        time.sleep(0.05)
    wait("the last count on the page", lambda: chips_shown(browser) == progress["chips"], 20)
    expect(seen == sorted(seen) and len(seen) >= 3, f"the chips on the page only grow, and often: {seen}")
    classes = run.api("classes")["classes"]
    expect(len(classes) == 8 and all(c["chips"] >= c["target"] for c in classes), f"every class is filled: {classes}")
    expect(browser.text("#classes").count("filled") == 8, "and the page says so")
    print(f"chips on the page grew in {len(seen)} steps to {progress['chips']}; all 8 classes are filled")
    return progress


def failure(run, browser, progress):
    expect(progress["tasks_failed"] >= 5, f"tasks of the broken tile failed: {progress['statuses']}")
    cell = browser.web.find_element(By.CSS_SELECTOR, "#map a[tabindex='0']")
    address = cell.get_attribute("href")
    address = address["baseVal"] if isinstance(address, dict) else address
    task = int(address.rsplit("/", 1)[1])
    # By keyboard, as somebody without a mouse would.
    browser.web.execute_script("arguments[0].focus()", cell)
    browser.web.switch_to.active_element.send_keys(Keys.ENTER)
    wait("the task's page", lambda: browser.web.current_url.endswith(f"/tasks/{task}"), 20)
    reason = browser.text("#reason")
    expect(reason == run.api(f"cells/{task}")["reason"] and len(reason) > 20, f"the reason on the page: {reason!r}")
    print(f"{progress['tasks_failed']} tasks failed; the page of task {task} says: {reason}")
    browser.shot("desktop-failed-task")
    # All of them, each with its reason and a way to it.
    browser.web.get(f"{run.url}/tasks?state=failed")
    listed = {link.get_attribute("href").rsplit("/", 1)[1] for link in browser.web.find_elements(By.CSS_SELECTOR, "main a[href^='/tasks/']")}
    failed = {str(cell["task"]) for cell in run.api("failures")["cells"]}
    expect(len(failed) == progress["tasks_failed"] and listed >= failed, f"listed {listed}, failed {failed}")
    expect(browser.text("main").count("is not a TIFF") >= len(failed), "every failure has its reason on the list")
    browser.shot("desktop-failures")
    print(f"the list names all {len(failed)} with their reasons")
    browser.web.get(run.url)


def looks(run, browser):
    wait("the overview", lambda: chips_shown(browser) is not None, 20)
    images = "return [...document.images].filter(i => i.complete && i.naturalWidth === 128).length"
    wait("24 pictures of chips", lambda: browser.web.execute_script(images) == 24, 60)
    browser.whole("desktop-light")
    browser.scheme("dark")
    browser.whole("desktop-dark")
    for name, width, height in (("phone", 390, 844), ("small-phone", 320, 640)):
        browser.size(width, height, phone=True)
        browser.scheme("dark")
        for page in ("/", "/tasks?state=failed", "/tasks"):
            browser.web.get(run.url + page)
            expect(browser.fits(), f"{page} has no horizontal scroll on {width} pixels")
        browser.web.get(run.url)
        wait("a live page", lambda: browser.text("#link span") == "live", 30)
        browser.shot(f"{name}-dark")
        browser.scheme("light")
        browser.shot(f"{name}-light")
    complaints = browser.complaints()
    expect(complaints == [], f"the browser has no complaint: {complaints}")
    browser.size(1280, 900)
    browser.scripts(False)
    browser.web.get(run.url)
    expect("8 fallow" in browser.web.page_source and "http-equiv=\"refresh\"" in browser.web.page_source, "no scripts")
    browser.scripts(True)
    print("desktop, phone, dark, light, without scripts: all there, nothing to scroll sideways, no complaint")


def main():
    parser = argparse.ArgumentParser()
    for name in ("node", "gpkg", "scenes", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--shots")
    args = parser.parse_args()
    run = Run(args)
    browser = None
    try:
        browser = Browser(args.shots)
        progress = watch(run, browser)
        failure(run, browser, progress)
        looks(run, browser)
    finally:
        if browser:
            browser.web.quit()
        run.stop()


main()
