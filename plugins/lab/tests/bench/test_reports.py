"""What is told of a run: every figure with its median, and a picture that is valid XML."""

import json
from xml.etree import ElementTree as ET

from turnlane_lab.bench import report
from turnlane_lab.bench.figures import Figures
from turnlane_lab.bench.measures import Load, Passed, Trips
from turnlane_lab.bench.plot import document, panel, plot

SVG = "{http://www.w3.org/2000/svg}"
HOW = report.settings(
    relay="lab",
    rounds=2,
    seconds=0.5,
    size="1200",
    lanes=1,
    peer="Python",
    receive_buffer=4096,
    send_buffer=2048,
)


def load(received: int) -> Load:
    passed = Passed(sent=100, received=received, bytes=received * 1000, seconds=2.0)
    return Load({"up": passed}, {"client": 0.01})


def test_a_load_tells_rates_losses_and_cpu_time_for_what_arrived():
    one = load(80)
    passed = one.passed["up"]
    assert (passed.lost, passed.loss, one.rate) == (20, 0.2, 40.0)
    assert one.mbit == 80_000 * 8e-6 / 2
    assert one.microseconds("client") == 125.0
    assert one.per_gigabyte("client") == 125.0


def test_percentiles_are_those_of_the_nearest_rank():
    found = Trips.of([*range(1000, 101_000, 1000)], 3)
    assert (found.count, found.lost, found.p50_us, found.p99_us) == (100, 3, 50.0, 99.0)
    assert Trips.of([], 1).p50_us == 0


def test_figures_keep_every_round_and_tell_the_median():
    figures = Figures()
    for received in (80, 100, 90):
        figures.load("tunnel.saturation.up", load(received))
    assert figures.median("tunnel.saturation.up.received") == 90
    assert figures.median("tunnel.saturation.up.lost") == 10
    assert figures.median("tunnel.nothing") is None
    assert figures.values["tunnel.saturation.up.sent"] == [100, 100, 100]
    told = figures.told()["tunnel.saturation.up.received"]
    assert told == {"median": 90, "values": [80, 100, 90]}


def test_a_ratio_is_taken_within_each_round_and_only_where_there_is_one():
    figures = Figures()
    for above, below in ((10, 5), (9, 3), (8, 0)):
        figures.add("above", above)
        figures.add("below", below)
    figures.add("once", 1)
    assert figures.per_round(lambda row: row["above"] / row["below"]) == [2, 3]
    assert figures.per_round(lambda row: row["once"]) == [1]


def test_what_was_not_measured_is_told_so():
    text = report.markdown(Figures(), report.machine(), HOW)
    assert text.count(report.MISSING) > 40
    assert "4096 bytes received and 2048 to send" in text


def test_the_document_holds_settings_machine_and_all_figures():
    figures = Figures()
    figures.add("tunnel.goodput.up.mbit", 12.5)
    told = json.loads(report.data(figures, report.machine(), HOW, targets=[]))
    assert told["schema"] == report.SCHEMA
    assert (told["settings"]["burst"], told["settings"]["window"]) == (16, 48)
    assert told["figures"] == {"tunnel.goodput.up.mbit": {"median": 12.5, "values": [12.5]}}
    assert {"machine", "targets"} <= set(told)


def test_the_plot_is_valid_xml_with_a_bar_for_each_part_of_each_figure():
    figures = Figures()
    figures.add("tunnel.goodput.up.mbit", 400)
    figures.add("relay.goodput.up.mbit", 900)
    for part in ("client", "server", "relay"):
        figures.add(f"tunnel.saturation.up.{part}.us", 3)
    root = ET.fromstring(plot(figures))
    bars = root.findall(f"./{SVG}g/{SVG}rect")
    assert len(bars) == 2 + 3 + 3  # goodput, CPU time, and the legend of the latter
    widest = max(float(each.attrib["width"]) for each in bars)
    narrow = float(bars[0].attrib["width"])
    assert abs(narrow / widest - 4 / 9) < 0.01


def test_a_plot_without_figures_and_one_with_odd_names_are_valid_too():
    assert ET.fromstring(plot(Figures())).tag == f"{SVG}svg"
    told = document([panel("<&>", [("a < b", [0.0])])])
    assert "<&>" in "".join(ET.fromstring(told).itertext())
