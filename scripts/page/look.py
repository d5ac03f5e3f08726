#!/usr/bin/env python3
"""Uses the page of examples/serve in a real browser, as a person would: drops a film,
chooses another, hides the contour, sends a file that is no film. Leaves pictures of
what is to be seen, at the width of a desk's screen and of a phone's, and fails where
something is missing.

    pip install playwright          # its library alone; the browser is the system's
    scripts/page/look.py http://127.0.0.1:8080 film.dcm other.png pictures/
"""
import base64, os, sys
from playwright.sync_api import sync_playwright

url, film, other, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
# Drops a file on the page, with the events that a browser sends for a person's.
DROP = """([name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
    for (const type of ['dragover', 'drop'])
        document.querySelector('#drop').dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def drop(page, path):
    with open(path, "rb") as f:
        page.evaluate(DROP, [os.path.basename(path), base64.b64encode(f.read()).decode()])


with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
    for name, width, height, phone in [("desk", 1200, 900, False), ("phone", 375, 667, True)]:
        context = browser.new_context(viewport={"width": width, "height": height}, has_touch=phone, is_mobile=phone)
        page = context.new_page()
        wrong, asked = [], []
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("request", lambda r: asked.append(r.url))
        page.goto(url)
        assert "research use, not for diagnosis" in page.inner_text("#notices").lower()
        page.screenshot(path=f"{out}/{name}-start.png", full_page=True)

        drop(page, film)
        page.wait_for_selector("#result:not([hidden])", timeout=180000)
        page.wait_for_function("document.querySelector('#picture').naturalWidth > 0")
        with_contour = page.get_attribute("#picture", "src")
        page.screenshot(path=f"{out}/{name}-dropped.png", full_page=True)
        page.uncheck("#contour")
        assert page.get_attribute("#picture", "src") != with_contour
        page.screenshot(path=f"{out}/{name}-plain.png", full_page=True)

        page.check("#contour")
        page.set_input_files("#file", other)
        page.wait_for_function("name => document.querySelector('#film').textContent.startsWith(name)", arg=os.path.basename(other), timeout=180000)
        page.screenshot(path=f"{out}/{name}-chosen.png", full_page=True)

        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page is wider than the screen"
        assert all(a.startswith((url, "data:")) for a in asked), asked
        assert not wrong, wrong
        page.set_input_files("#file", __file__)
        page.wait_for_selector("#status.error", timeout=180000)
        assert "wanted a DICOM, PNG or JPEG file" in page.inner_text("#status")
        page.screenshot(path=f"{out}/{name}-error.png", full_page=True)
        print(name, page.inner_text("#status"))
        context.close()
    browser.close()
