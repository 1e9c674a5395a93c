"""A page of panels as plain records, and what Grafana's SDK makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

# Stands for the place of the folder docs: the role grafana puts its option grafana_docs_url there.
DOCS = "https://docs.invalid/heteroserve"
TAG = "heteroserve"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GOOD, FAIR, BAD, NEUTRAL = "green", "orange", "red", "blue"

# Names of queries whose lines are what was planned: dashed, as nothing was measured.
PLANNED = "plan"

Drawn = timeseries.Panel | stat.Panel | bargauge.Panel


@dataclass(frozen=True)
class Query:
    """What is asked of Prometheus, and the name of each line in the legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel; ``width`` and ``height`` are units of Grafana's grid."""

    title: str
    about: str  # what it shows and what to make of it: Grafana's description
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    height: int = 8
    low: float | None = 0.0
    high: float | None = None
    stacked: bool = False
    decimals: int | None = None

    def kind(self) -> str:
        """Grafana's type of the panel."""
        return "timeseries"


@dataclass(frozen=True)
class Number(Panel):
    """The last value, large. ``steps`` are the values from which a colour holds; the first has no value."""

    width: int = 4
    height: int = 4
    low: float | None = None
    steps: tuple[tuple[str, float | None], ...] = ((NEUTRAL, None),)
    words: dict[str, tuple[str, str]] = field(default_factory=dict)  # value -> text, colour
    empty: str = "none"  # what stands there where nothing is measured

    def kind(self) -> str:
        return "stat"


@dataclass(frozen=True)
class Bars(Number):
    """The last value of each series, as bars beside each other."""

    width: int = 8
    height: int = 8
    low: float | None = 0.0

    def kind(self) -> str:
        return "bargauge"


@dataclass(frozen=True)
class Section:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Choice:
    """A variable whose values are those of a label."""

    name: str
    query: str


@dataclass(frozen=True)
class Page:
    """One dashboard."""

    name: str  # of the file, the heading in docs/dashboards.md, and Grafana's uid behind "heteroserve-"
    title: str
    about: str
    sections: tuple[Section, ...]
    choices: tuple[Choice, ...] = ()
    since: str = "now-1h"
    refresh: str = "30s"
    step: str = ""  # of scrapes that are rarer than the datasource's; Grafana makes the window of rates from it


def build(page: Page) -> Dashboard:
    """The dashboard as Grafana's schema has it."""
    made = (
        dashboard.Dashboard(page.title)
        .uid(f"heteroserve-{page.name}")
        .description(page.about)
        .tags([TAG])
        .readonly()
        .time(page.since, "now")
        .refresh(page.refresh)
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(
            dashboard.DashboardLink("HeteroServe")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .link(_docs_link(page, "What these panels mean"))
    )
    for choice in page.choices:
        made.with_variable(_variable(choice))
    number = 0
    for section in page.sections:
        number += 1
        made.with_row(dashboard.Row(section.title).id(number))
        for panel in section.panels:
            number += 1
            made.with_panel(_panel(page, panel, number))
    return made.build()


def _docs_link(page: Page, title: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .icon("doc")
        .url(f"{DOCS}/dashboards.md#{page.name}")
        .target_blank(True)
    )


def _variable(choice: Choice) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(choice.name)
        .label(choice.name.capitalize())
        .query({"query": choice.query, "refId": choice.name})
        .datasource(SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(page: Page, panel: Panel, number: int) -> Drawn:
    makers: dict[str, Callable[[Panel], Drawn]] = {"timeseries": _lines, "stat": _number, "bargauge": _bars}
    made = (
        makers[panel.kind()](panel)
        .id(number)
        .title(panel.title)
        .description(panel.about)
        .datasource(SOURCE)
        .unit(panel.unit)
        .height(panel.height)
        .span(panel.width)
        .links([_docs_link(page, "What this panel means")])
    )
    if panel.low is not None:
        made.min(panel.low)
    if panel.high is not None:
        made.max(panel.high)
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(SOURCE)
        target.legend_format(query.legend or "__auto")
        if page.step:
            target.interval(page.step)
        made.with_target(target.range() if panel.kind() == "timeseries" else target.instant())
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1.5)
        .fill_opacity(40 if panel.stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .span_nulls(False)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    dashed = [
        DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
        DynamicConfigValue(id_val="custom.fillOpacity", value=0),
    ]
    return made.override_by_regexp(f"^{PLANNED}.*", dashed)


def _thresholds(steps: Sequence[tuple[str, float | None]]) -> dashboard.ThresholdsConfig:
    levels = [Threshold(color=color, value=value) for color, value in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(levels)


def _words(panel: Number) -> list[ValueMapping]:
    if not panel.words:
        return []
    found = {value: ValueMappingResult(text=text, color=color) for value, (text, color) in panel.words.items()}
    return [ValueMap(options=found)]


def _number(panel: Panel) -> stat.Panel:
    assert isinstance(panel, Number)
    named = any(query.legend for query in panel.queries)
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.BACKGROUND if panel.words else BigValueColorMode.VALUE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME if named else BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value(panel.empty)
        .thresholds(_thresholds(panel.steps))
        .mappings(_words(panel))
    )


def _bars(panel: Panel) -> bargauge.Panel:
    assert isinstance(panel, Number)
    return (
        bargauge.Panel()
        .display_mode(BarGaugeDisplayMode.BASIC)
        .orientation(VizOrientation.HORIZONTAL)
        .show_unfilled(True)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value(panel.empty)
        .thresholds(_thresholds(panel.steps))
        .mappings(_words(panel))
    )
