"""The page of `debug.report` in a real browser: clicked, slid and typed at."""

import json
import shutil

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import debug
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.text import BPETokenizer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="Chromium and chromedriver are not installed: the page is not opened in a browser"
)
TEXT = "No </script> <img src=x onerror=alert(1)> here"


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def model():
    return GPTModel(GPTConfig(257, 64, 16, 2, 2, drop_rate=0.0), rng=tg.rng.Generator(1))


@pytest.fixture(scope="module")
def steps(model):
    return list(loss_of(model).backward_steps(retain_graph=True, into={}))


@pytest.fixture
def page(browser, model, tmp_path):
    browser.get("about:blank")
    browser.get_log("performance")  # of what was open before
    ids = np.array(BPETokenizer([]).encode(TEXT))
    debug.report(loss_of(model), tmp_path / "report.html", model=model, ids=ids, tokenizer=BPETokenizer([]))
    yield show(browser, tmp_path / "report.html")
    assert browser.get_log("browser") == []  # no error, no warning
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert len([url for url in asked if url.startswith("file")]) == 1


def loss_of(model):
    ids = np.array(BPETokenizer([]).encode(TEXT))[None]
    return tg.ops.cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:])


def show(browser, path, width=1280, scheme="light"):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(path.as_uri())
    return browser


def labels_of(page):
    return page.execute_script("return [...document.querySelectorAll('#rows .label')].map(label => label.textContent)")


def text(page, selector):
    return page.find_element("css selector", selector).text


def pixels(page, selector):
    """The canvas as (rows, cols, red green blue alpha)."""
    rows, cols, flat = page.execute_script(
        "const c = document.querySelector(arguments[0]);"
        "return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]",
        selector,
    )
    return np.array(flat).reshape(rows, cols, 4)


def assert_shows(page, step):
    assert text(page, "#name") == step.name
    assert text(page, "#backward") == step.worked.replace("  ", " ")  # as HTML shows spaces
    assert text(page, "#position") == f"step {step.i + 1} of {step.n}"
    assert text(page, "#rows [aria-current] .label") == step.name.rpartition(".")[2]
    assert text(page, "#verdict") == "✓ checked"
    g = step.grad_out
    assert f"norm |g| {np.linalg.norm(g):.4g}"[:14].rstrip("0") in text(page, "#g").replace("−", "-")
    if g.size > 16 and g.shape[-1] <= 64:
        flat = g.reshape(-1, g.shape[-1])
        shown = pixels(page, "#g canvas")
        assert shown.shape[:2] == flat.shape
        strong = np.abs(flat) > 0.01 * np.abs(flat).max()
        is_orange = shown[..., 0] > shown[..., 2]
        np.testing.assert_array_equal(is_orange[strong], (flat > 0)[strong])
        opacity = np.sqrt(np.abs(flat) / np.abs(flat).max()) * 255
        np.testing.assert_allclose(shown[..., 3], opacity, atol=3)


def test_stepping_by_click_key_and_drag(page, steps):
    from selenium.webdriver import ActionChains, Keys

    following, previous = page.find_element("id", "next"), page.find_element("id", "previous")
    slider = page.find_element("id", "slider")
    assert_shows(page, steps[0])
    assert not previous.is_enabled()
    for k in (1, 2, 3):
        following.click()
        assert_shows(page, steps[k])
    previous.click()
    assert_shows(page, steps[2])
    page.find_element("tag name", "body").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert_shows(page, steps[4])
    slider.send_keys(Keys.ARROW_RIGHT)
    assert_shows(page, steps[5])
    slider.send_keys(Keys.END)
    assert_shows(page, steps[-1])
    assert not following.is_enabled()
    width = slider.size["width"]
    ActionChains(page).move_to_element_with_offset(slider, width // 2 - 8, 0).click_and_hold().move_by_offset(
        -width // 2, 0
    ).release().perform()
    reached = int(page.execute_script("return slider.value"))
    assert abs(reached - len(steps) // 2) <= 1
    assert_shows(page, steps[reached])
    names = [element.text for element in page.find_elements("css selector", "#out figcaption button")]
    page.find_element("css selector", "#out figcaption button").click()  # along the edge of the graph
    assert text(page, "#name") == names[0]
    assert steps[reached].name in text(page, "#senders")


def test_the_graph_folds_and_leads(page, steps):
    def row(label):
        (found,) = [
            r for r in page.find_elements("css selector", "#rows button") if r.text.splitlines()[-2:][0] == label
        ]
        return found

    assert labels_of(page) == ["cross_entropy#1", "out_head", "final_norm", "trf_blocks", "add#1", "pos_emb", "tok_emb"]
    row("trf_blocks").click()
    assert labels_of(page)[4:6] == ["1", "0"]
    assert "12 ops" in row("1").text
    assert "3,232 parameters" in row("1").text
    row("tok_emb").click()
    row("embedding#1").click()
    assert_shows(page, next(step for step in steps if step.name == "tok_emb.embedding#1"))
    row("trf_blocks").click()
    assert "1" not in labels_of(page)
    # from each op and folded module to the next, add#1 to two of them, and from tok_emb.embedding#1 to its weight
    assert len(page.find_elements("css selector", "#edges path")) == 7


def test_the_text(page, model):
    from selenium.webdriver import ActionChains

    assert "".join(e.text for e in page.find_elements("css selector", "#tokens span")) == TEXT.replace(" ", "·")
    assert len(page.find_elements("tag name", "script")) == 2
    assert page.find_elements("tag name", "img") == []
    n = len(TEXT) - 1
    for side in (".down", ".across"):
        spans = page.find_elements("css selector", f"#attention {side} span")
        assert "".join(e.get_property("textContent") for e in spans) == TEXT[:-1].replace(" ", "·")
    ids = np.array(BPETokenizer([]).encode(TEXT))[None]
    _, cache = model.run_with_cache(ids[:, :-1], names="*.att.weights")
    for layer in (0, 1):
        page.find_elements("css selector", "#layers button")[layer].click()
        for head in (0, 1):
            page.find_elements("css selector", "#heads button")[head].click()
            expected = cache[f"trf_blocks.{layer}.att.weights"][0, head]
            np.testing.assert_allclose((pixels(page, "#attention canvas")[..., 3] / 255) ** 2, expected, atol=0.02)
    canvas = page.find_element("css selector", "#attention canvas")
    cell = canvas.size["width"] / n
    ActionChains(page).move_to_element_with_offset(canvas, cell * (0.5 - n / 2), cell * (4.5 - n / 2)).perform()
    words, _, value = text(page, "#tip").rpartition(" ≈ ")
    assert words == "/ looks at N"
    assert float(value) == pytest.approx(expected[4, 0], abs=0.005)
    rows = page.find_elements("css selector", "#lens tbody tr")
    best = model(ids[:, :-1]).data[0].argmax(-1)
    shown = [e.get_property("textContent") for e in rows[1].find_elements("tag name", "td")]
    assert shown == [tg.text.view.visible(bytes([i])) for i in best]


def test_nan_has_a_colour_and_is_counted(browser, tmp_path):
    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10)
    x[2, 3], x[4, 5] = np.nan, np.inf
    t = tg.Tensor(x, True, "<b>x</b>")
    debug.report((t * t).sum(), tmp_path / "a.html")
    page = show(browser, tmp_path / "a.html")
    page.find_element("id", "next").click()
    assert "1 NaN · 1 Inf" in text(page, "#out")
    assert "→ <b>x</b>" in text(page, "#out")
    shown = pixels(page, "#out canvas")
    assert shown[2, 3].tolist() == [217, 70, 239, 255]
    assert shown[4, 5].tolist() == [5, 150, 105, 255]
    assert len(np.unique(shown.reshape(-1, 4), axis=0)) > 20
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [1280, 600, 360])
def test_light_and_dark_and_narrow(browser, page, tmp_path, width):
    grounds = set()
    for scheme in ("light", "dark"):
        page = show(browser, tmp_path / "report.html", width, scheme)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width  # nothing sticks out
        grounds.add(page.find_element("tag name", "body").value_of_css_property("background-color"))
        page.find_element("id", "next").click()
        assert text(page, "#name") == "out_head.linear#1"
    assert len(grounds) == 2


def test_a_graph_with_steps_left_out(browser, tmp_path):
    y = tg.Tensor(np.ones(40, np.float32), True, "x")
    for _ in range(999):
        y = y * 1.001
    debug.report(y.sum(), tmp_path / "a.html")
    page = show(browser, tmp_path / "a.html")
    assert "Steps 201 to 800 of 1,000 are left out" in text(page, "#notes")
    assert "600 ops left out" in labels_of(page)
    page.execute_script("go(199)")
    assert text(page, "#position") == "step 200 of 1,000"
    page.find_element("id", "next").click()
    assert text(page, "#position") == "step 801 of 1,000"
    assert "from steps that are left out" in text(page, "#senders")
    assert browser.get_log("browser") == []


class LongTokens:
    def decode_bytes(self, ids):
        return b"a long token " * 3


def test_long_tokens_leave_room_for_the_attention_on_a_narrow_screen(browser, model, tmp_path):
    ids = np.arange(20)
    debug.report(loss_of(model), tmp_path / "report.html", model=model, ids=ids, tokenizer=LongTokens())
    page = show(browser, tmp_path / "report.html", width=390)
    left = page.execute_script("return document.querySelector('#attention canvas').getBoundingClientRect().left")
    assert left < 390 / 2


def test_figures_of_tokens(browser, model, tmp_path):
    from selenium.webdriver import ActionChains

    tokens = ["a", "<img src=x>", "·", "\\n"]
    rows = [
        debug.Row("KL", np.array([0.5, -1.0, 1e-9, np.nan]), "how far", summed=True),
        debug.Row("advantage", np.array([1.0, -2.0, 0.0, 0.5]), "how much <b>better</b>"),
        debug.Row("ratio", np.array([1.0, 1.1, 0.9, 5.0]), "odds", neutral=1.0, scale=0.2),
        debug.Row("clipped", np.array([False, True, False, True]), "too far", summed=True),
    ]
    table = debug.TokenTable("Of <one> answer", tokens, rows, {"score <i>": 0.123456, "answer": "<b>"})
    debug.report(loss_of(model), tmp_path / "report.html", tables=[table])
    for width in (1280, 390):
        page = show(browser, tmp_path / "report.html", width=width)
        assert text(page, "#tables h2") == "Of <one> answer"
        assert text(page, "#tables dl").split("\n") == ["score <i>", "0.1235", "answer", "<b>"]
        lines = [[e.get_property("textContent") for e in row.find_elements("css selector", "th, td")]
                 for row in page.find_elements("css selector", "#tables tr")]  # fmt: skip
        assert lines == [
            ["token", "KL", "advantage", "ratio", "clipped"],
            ["a", "0.500", "1.000", "1.000", ""],
            ["<img src=x>", "−1.000", "−2.000", "1.100", "yes"],
            ["·", "0", "0", "0.900", ""],
            ["\\n", "NaN", "0.500", "5.000", "yes"],
            ["sum", "NaN", "", "", "2"],
        ]
        strip = page.find_elements("css selector", "#tables .strip span")
        assert [e.get_property("textContent") for e in strip] == tokens
        assert page.find_elements("tag name", "img") == []
        assert (
            page.execute_script("return document.documentElement.scrollWidth") <= width
        )  # the table alone is scrolled
        hint = page.find_element("css selector", "#tables .hint")
        assert hint.text == "advantage: how much <b>better</b>"
        ActionChains(page).move_to_element(strip[1]).perform()
        assert "KL −1 · advantage −2 · ratio 1.1 · clipped yes" in hint.text
        assert [e.text for e in page.find_elements("css selector", "#tables tr.lit th")] == ["<img src=x>"]
        reds = [_tint(e) for e in strip]
        assert reds[0] > 0 > reds[1]
        assert abs(reds[0]) < abs(reds[1])
        assert reds[2] == 0
        page.find_elements("css selector", "#tables .chooser button")[2].click()  # ratio
        reds = [_tint(e) for e in strip]
        assert reds[0] == 0
        assert reds[1] == pytest.approx(-reds[2], abs=0.01)
        assert browser.get_log("browser") == []


def _tint(element):
    """How strong its colour is, from -1, blue, to 1, orange."""
    colour = element.value_of_css_property("background-color")
    parts = [
        float(word)
        for word in colour[colour.index("(") + 1 : -1].replace("srgb", "").replace("/", " ").replace(",", " ").split()
    ]
    red, _, blue, alpha = [*parts, 1.0][:4]
    return alpha if red > blue else -alpha if alpha else 0.0


def test_values_variables_and_the_matrices_of_a_head(browser, tmp_path):
    a = tg.Tensor(2.0, True)
    b = a + a
    c = b * b
    debug.report(c, tmp_path / "a.html")
    page = show(browser, tmp_path / "a.html")
    assert text(page, "#name") == "multiply#1 c"
    assert text(page, "#backward") == "dx = g y = 1 * 4 = 4, dy = g x = 1 * 4 = 4"
    page.find_element("id", "next").click()
    assert text(page, "#name") == "add#1 b"
    assert text(page, "#senders").endswith("— 4 + 4, the sum over its 2 uses")
    assert text(page, "#args").split() == ["x", "=", "a", "()", "float32", "2", "y", "=", "a", "()", "float32", "2"]
    assert text(page, "#result").split() == ["b", "()", "float32", "4"]
    assert "∇ 8 + 8, |∇| 16" in text(page, "#rows .leaf")
    assert not page.find_element("id", "inside").is_displayed()

    x = tg.Tensor(np.random.default_rng(0).standard_normal((1, 5, 8)), True, "x")
    loss = tg.ops.attention(x, x, x, n_heads=2).sum()
    debug.report(loss, tmp_path / "b.html")
    page = show(browser, tmp_path / "b.html")
    page.find_element("id", "next").click()
    for h, button in enumerate(["0", "1"]):
        page.find_element("xpath", f"//*[@id='inside-heads']/button[.='{button}']").click()
        q = x.data[0, :, 4 * h : 4 * h + 4]
        p = np.where(np.tri(5), np.exp(q @ q.T / 2), 0)
        p /= p.sum(1, keepdims=True)
        shown = pixels(page, "#matrices canvas")  # P, the first of three
        np.testing.assert_allclose(shown[..., 3], 255 * np.sqrt(p / p.max()), atol=3)
        assert [e.text.split()[0] for e in page.find_elements("css selector", "#matrices figcaption")] == [
            "P",
            "dP",
            "dS",
        ]
    assert browser.get_log("browser") == []


def test_where_a_translation_looked(browser, model, tmp_path):
    """Rows and columns of different texts, the mean of the heads before each of them, the last layer at first."""
    from selenium.webdriver import ActionChains

    weights = np.random.RandomState(0).dirichlet(np.ones(3), (2, 2, 4))  # (layers, heads, T, S)
    source, target = ["<i>a", "·b", "end"], ["A", "·<b>B", "·C", "end"]
    aligned = debug.AlignedText("a <b> → A B C", "who looks at whom.", source, target, ["first", "second"], weights)
    debug.report(loss_of(model), tmp_path / "report.html", alignments=[aligned, aligned])
    page = show(browser, tmp_path / "report.html")
    assert [e.text for e in page.find_elements("css selector", ".alignment h2")] == ["a <b> → A B C"] * 2
    for side, words in ((".down", target), (".across", source)):
        spans = page.find_elements("css selector", f".alignment:first-child .attention {side} span")
        assert [e.get_property("textContent") for e in spans] == words
    buttons = [
        page.find_elements("css selector", f".alignment:first-child [aria-label={name}] button")
        for name in ("layer", "head")
    ]
    assert [button.get_attribute("title") for button in buttons[1]] == ["mean of the heads", "head 0", "head 1"]
    canvas = ".alignment:first-child .attention canvas"
    np.testing.assert_allclose((pixels(page, canvas)[..., 3] / 255) ** 2, weights[1].mean(0), atol=0.02)
    buttons[0][0].click()
    page.find_elements("css selector", ".alignment:first-child [aria-label=head] button")[2].click()
    np.testing.assert_allclose((pixels(page, canvas)[..., 3] / 255) ** 2, weights[0, 1], atol=0.02)
    element = page.find_element("css selector", canvas)
    across, down = element.size["width"] / 3, element.size["height"] / 4
    ActionChains(page).move_to_element_with_offset(element, int(across), -int(down * 1.4)).perform()
    words, _, value = text(page, "#tip").rpartition(" ≈ ")
    assert words == "A looks at end"
    assert float(value) == pytest.approx(weights[0, 1, 0, 2], abs=0.005)
    assert browser.get_log("browser") == []
