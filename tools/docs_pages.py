"""Looks at every page of the built documentation site in a browser, as `make docs-look` does.

    python tools/docs_pages.py [--shots FOLDER] [PAGE...]

At the width of a desktop and of a phone, in light and dark: no page may scroll sideways, every
image must exist, and there must be no network requests and no messages on the console. PAGE is part
of a name ("guides/"). With --shots each view is kept as a picture. Not for links: Sphinx and the
tests check those.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

SITE = Path(__file__).resolve().parent.parent / "build" / "docs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = {"desk": 1440, "phone": 390}
SCHEMES = ("light", "dark")

# Finds elements that extend beyond the right edge without being in a scrolling box, and images that
# did not load. `width` is the screen's: a phone makes its view as wide as the widest element. On a
# phone the theme lets the whole article scroll, which does not count as such a box.
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
  for (const image of document.images)
    if (!image.complete || image.naturalWidth === 0) found.push(`no image ${image.src}`);
  if (document.querySelectorAll("h1").length !== 1 && !document.querySelector("#search-results"))
    found.push("has not one h1");
  return found;
}"""


# A page with every problem that PROBLEMS finds.
BAD = """<article style="width: 3000px"><p>wide</p></article><img src="file:///no/such.png">"""


def overlooks(browser: Browser) -> bool:
    """Whether the check misses the problems of a bad page."""
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_content(BAD, wait_until="load")
    found = "\n".join(page.evaluate(PROBLEMS, 390))
    page.close()
    return not all(words in found for words in ("sideways", "is cut off", "no image", "one h1"))


def views(browser: Browser, pages: list[Path], shots: Path | None) -> Iterator[str]:
    """Opens each page in each view; yields its problems."""
    for name, width in WIDTHS.items():
        for scheme in SCHEMES:
            page = browser.new_page(
                viewport={"width": width, "height": 900},
                color_scheme=scheme,
                is_mobile=name == "phone",
                has_touch=name == "phone",
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
                for problem in (*page.evaluate(PROBLEMS, width), *heard):
                    yield f"{where}, {name}, {scheme}: {problem}"
                if shots is not None:
                    file = shots / f"{where.replace('/', '_')}-{name}-{scheme}.png"
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
        if overlooks(browser):
            print("docs_pages: the check does not see what is wrong with a bad page")
            return 2
        found = list(views(browser, pages, options.shots))
        browser.close()
    print("\n".join(found))
    print(f"{len(pages)} pages, {len(WIDTHS) * len(SCHEMES)} views of each, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
