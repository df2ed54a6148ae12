"""The page in a real browser: it renders, loads nothing, and prints without cut rows."""

import html.parser
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pypdf
import pytest

from wmplug.report import dossier

pytestmark = pytest.mark.browser

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the browser asks its makers for news all the same
)


@pytest.fixture
def browse(tmp_path):
    """Runs the browser on a page with further options: its output, what it logged, and the URLs it asked for."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("these tests need a browser: apt-get install chromium")

    def run(page, *options):
        file, log = tmp_path / "page.html", tmp_path / "net.json"
        file.write_text(page, encoding="utf-8")
        profile = tmp_path / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        command = [program, *_QUIET, f"--user-data-dir={profile}", f"--log-net-log={log}", *options, file.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
        return done.stdout.decode(), console, _asked(log.read_text(encoding="utf-8"))

    return run


def _asked(log):
    """What pages asked for; the browser's own requests have no origin."""
    lines = [line.rstrip(" ,]") for line in log.splitlines() if '"initiator"' in line]  # an event is a line
    requests = [json.loads(line)["params"] for line in lines if line.startswith('{"params"')]
    return {one["url"] for one in requests if one["initiator"] != "not an origin"}


@pytest.fixture
def outside():
    """A server that must not be contacted, and the paths that were asked for."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_it_renders_without_a_word_in_the_console_and_asks_nobody(browse, document, tmp_path):
    shot = tmp_path / "shot.png"
    page, console, asked = browse(dossier.render(document), "--dump-dom")
    assert "less than one in 10" in page
    assert '<span class="tag proven">proven</span>' in page
    assert console == []
    assert asked == set()
    browse(dossier.render(document), f"--screenshot={shot}", "--window-size=900,1400")
    assert shot.stat().st_size > 20_000


def test_the_browser_would_have_told(browse, outside):
    url, paths = outside
    _, console, asked = browse(f"<img src={url}/x><script>console.error('heard')</script>", "--dump-dom")
    assert any("heard" in line for line in console)
    assert paths == ["/x"]
    assert f"{url}/x" in asked


def test_its_policy_stops_what_would_be_loaded(browse, outside, document):
    url, paths = outside
    parts = (
        f"<img src={url}/a><link rel=stylesheet href={url}/b><script src={url}/c></script><script>alert(1)</script>"
        f"<iframe src={url}/d></iframe><object data={url}/e></object><style>body {{ background: url({url}/f) }}</style>"
    )
    page = dossier.render(document).replace("</body>", f"{parts}</body>")
    _, console, _ = browse(page, "--dump-dom")
    assert paths == []
    assert len([line for line in console if "Content Security Policy" in line]) >= 5


def test_hostile_names_do_nothing(browse, hostile):
    page, console, asked = browse(dossier.render(dossier.gather(hostile)), "--dump-dom")
    assert "&lt;script&gt;alert" in page
    assert console == []
    assert asked == set()


class Rows(html.parser.HTMLParser):
    """The rows of all tables, as lists of cells without white space, and the heads that stand above more than one."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.cell = [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += "".join(data.split())


def printed(browse, page, tmp_path):
    file = tmp_path / "page.pdf"
    browse(page, f"--print-to-pdf={file}", "--no-pdf-header-footer")
    return pypdf.PdfReader(file).pages


def lowest(page):
    """Height over the bottom, in points, of the last line on a page; what stands in its margins does not count."""
    heights = []

    def seen(text, to_user, to_text, font, size):
        if text.strip():
            heights.append(to_text[5] * to_user[3] + to_user[5])

    page.extract_text(visitor_text=seen)
    return min(height for height in heights if height > 60)


def test_it_prints_on_a4_without_cut_rows(browse, document, tmp_path):
    long = json.loads(dossier.encode(document))
    long["runs"][0]["looks"] *= 6
    for number, look in enumerate(long["runs"][0]["looks"]):
        look["entry"] = 1_000 + number
    # Tall rows on several pages: without a rule against it, some would be cut.
    long["assets"] = [{**asset, "text": f"{n} " + asset["text"] * 4} for n in range(8) for asset in long["assets"]]
    made = dossier.render(long)
    pages = printed(browse, made, tmp_path)
    assert 12 <= len(pages) <= 24
    assert {tuple(round(float(x)) for x in page.mediabox[2:]) for page in pages} == {(595, 842)}
    texts = ["".join(page.extract_text().split()) for page in pages]
    rows = [row for row in Rows(made).rows if any(row)]
    assert len(rows) > 60
    cut = [row for row in rows if not any(all(cell in text for cell in row) for text in texts)]
    assert cut == []
    for number, text in enumerate(texts, 1):
        assert f"page{number}of{len(pages)}" in text
        assert "NOTATTESTED" in text.replace("LABONLY-NOTATTESTED", "").replace("LABONLY,NOTATTESTED", "")
    assert all(lowest(page) < 842 / 2 for page in pages[:-1]), "a page is half empty"
    # The table of looks is longer than a page: its head stands on each page that has some of it.
    head = "StepMatchesByluck"
    with_looks = [text for text in texts if re.search(r"lessthanonein10\S{2,3}-\d+\.\dproven1\d\d\d", text)]
    assert len(with_looks) >= 2
    assert all(head in text for text in with_looks)


@pytest.mark.usefixtures("real_authority")
def test_an_attested_page_prints_without_the_warning(browse, story, tmp_path):
    pages = printed(browse, dossier.render(dossier.gather(story.path)), tmp_path)
    assert "NOT ATTESTED" not in pages[0].extract_text()
    assert "ATTESTED" in pages[0].extract_text()
