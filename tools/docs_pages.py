"""Looks at every page of the built documentation site in a browser, as `make docs-look` does.

    python tools/docs_pages.py [--shots FOLDER] [PAGE...]

At widths from a phone's to a large screen's, in light and dark: no page may scroll sideways, no
code may be wider than its box, on a desk no table either, every image must exist and be of the
scheme, text must have the contrast of WCAG AA by axe, and there must be no network requests and no
messages on the console. PAGE is part of a name ("guides/"). With --shots each view is kept as a
picture. Not for links: Sphinx and the tests check those.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

SITE = Path(__file__).resolve().parent.parent / "build" / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = 390
WIDTHS = (PHONE, 768, 1024, 1280, 1440, 1920)
# The colours are the same at every width, and axe takes a second a page.
CONTRAST_AT = 1440
SCHEMES = ("light", "dark")

# Finds elements beyond the right edge without a scrolling box, code and tables wider than
# their boxes (a table of many columns scrolls on a small screen), images of the other scheme, and
# images that did not load. `width` is the screen's: a phone makes its view as wide as the widest
# element. There the theme lets the whole article scroll, which is no such box.
PROBLEMS = """width => {
  const found = [];
  if (document.documentElement.scrollWidth > width) found.push("scrolls sideways");
  const scrolls = e => e.localName !== "article"
    && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const wide = [...document.querySelectorAll("article *")].filter(
    e => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  if (wide.length) {
    const widest = wide[wide.length - 1];
    found.push(`<${widest.localName}> is cut off: ${widest.textContent.slice(0, 60)}`);
  }
  for (const box of document.querySelectorAll("article pre, article .table-wrapper"))
    if (box.clientWidth && box.scrollWidth > box.clientWidth + 1
        && (box.localName === "pre" || width >= 1440))
      found.push(`${box.localName === "pre" ? "code" : "table"} is ${box.scrollWidth} wide in `
        + `${box.clientWidth}: ${box.textContent.trim().slice(0, 60)}`);
  const other = matchMedia("(prefers-color-scheme: dark)").matches ? "-light.svg" : "-dark.svg";
  for (const image of document.images)
    if (image.checkVisibility() && image.src.endsWith(other))
      found.push(`an image of the other scheme: ${image.src}`);
  for (const image of document.images)
    if (!image.complete || image.naturalWidth === 0) found.push(`no image ${image.src}`);
  if (document.querySelectorAll("h1").length !== 1 && !document.querySelector("#search-results"))
    found.push("has not one h1");
  return found;
}"""


# A page with every problem that is looked for, and a word of each report.
BAD = """<article style="width: 3000px"><p style="color: #eee; background: #fff">wide</p>
<pre style="width: 9px; overflow: auto">import tensor_bridge</pre>
<div class="table-wrapper" style="width: 9px; overflow: auto"><table><td>tensor_bridge</table>
</div>
</article><img src="file:///no/such-dark.svg">"""
WORDS = (
    "sideways",
    "is cut off",
    "code is",
    "table is",
    "other scheme",
    "no image",
    "one h1",
    "axe",
)


def low_contrast(page: Page) -> Iterator[str]:
    """The elements whose text axe finds too weak."""
    options = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
    for violation in Axe().run(page, options=options).response["violations"]:
        for node in violation["nodes"]:
            colours = node["any"][0]["data"]
            yield (
                f"axe: contrast {colours['contrastRatio']} of {colours['fgColor']} on "
                f"{colours['bgColor']}: {node['html'][:80]}"
            )


def problems(page: Page, width: int) -> Iterator[str]:
    yield from page.evaluate(PROBLEMS, width)
    if width == CONTRAST_AT:
        yield from low_contrast(page)


def overlooked(browser: Browser) -> list[str]:
    """The problems of a bad page that the check misses."""
    page = browser.new_page(viewport={"width": CONTRAST_AT, "height": 900}, color_scheme="light")
    page.set_content(BAD, wait_until="load")
    found = "\n".join(problems(page, CONTRAST_AT))
    page.close()
    return [word for word in WORDS if word not in found]


def views(browser: Browser, pages: list[Path], shots: Path | None) -> Iterator[str]:
    """Opens each page in each view; yields its problems."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            page = browser.new_page(
                viewport={"width": width, "height": 900},
                color_scheme=scheme,
                is_mobile=width == PHONE,
                has_touch=width == PHONE,
            )
            heard: list[str] = []
            page.on("console", lambda m, to=heard: to.append(f"{m.type}: {m.text}"))
            page.on("pageerror", lambda e, to=heard: to.append(str(e)))
            page.on(
                "request",
                lambda r, to=heard: (
                    None if r.url.startswith(("file:", "data:")) else to.append(f"asks for {r.url}")
                ),
            )
            for path in pages:
                heard.clear()
                page.goto(path.as_uri(), wait_until="load")
                where = path.relative_to(SITE).with_suffix("").as_posix()
                for problem in (*problems(page, width), *heard):
                    yield f"{where}, {width}, {scheme}: {' '.join(problem.split())}"
                if shots is not None:
                    file = shots / f"{where.replace('/', '_')}-{width}-{scheme}.png"
                    page.screenshot(path=file, full_page=True)
            page.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Looks at the built site in a browser.")
    parser.add_argument("--shots", type=Path, help="folder for pictures of every view")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="part of a page's name")
    options = parser.parse_args(arguments)

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        print(f"docs_pages: none of {', '.join(BROWSERS)} is installed", file=sys.stderr)
        return 2
    pages = [
        path
        for path in sorted(SITE.glob("**/*.html"))
        if not path.is_relative_to(SITE / "_static")
        and path != SITE / "index.html"  # leads on
        and (not options.pages or any(part in str(path) for part in options.pages))
    ]
    if not pages:
        print(f"docs_pages: no such page in {SITE}; make docs builds it", file=sys.stderr)
        return 2
    if options.shots is not None:
        options.shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        # A container's root cannot use Chromium's sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        if missed := overlooked(browser):
            print(f"docs_pages: the check does not see of a bad page: {', '.join(missed)}")
            return 2
        found = list(views(browser, pages, options.shots))
        browser.close()
    print("\n".join(found))
    print(f"{len(pages)} pages, {len(WIDTHS) * len(SCHEMES)} views of each, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
