"""Tables and a plot of the results of run.py."""

import io
import statistics

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

BARE, KERAS, OURS = "no penalty", "keras.regularizers.L2", "L2AllWeights"
DECAY = "weight_decay"
OUR_DECAYS = "set_weight_decay", "decay of L2AllWeights"


def show(results):
    console = Console(width=120)
    for question, by_mode in results["answers"].items():
        for mode, answer in by_mode.items():
            console.print(TABLES[question](mode, answer))


def write(results, path):
    """The same as a page of the docs."""
    page = io.StringIO()
    console = Console(file=page, width=400, markup=False, highlight=False)
    console.print(
        "# Measurements\n\n"
        f"{results['machine']}. By one `python benchmarks/run.py`, in "
        f"{results['seconds'] // 60} minutes. Medians over interleaved rounds, "
        "with quartiles; what is added is more than the bare step of the round. "
        '"noise": the lower quartile of what Keras\' `L2` adds is below 0. "Computing" '
        "is the time of the process on all cores, which scheduling affects less."
    )
    for question, by_mode in results["answers"].items():
        for mode, answer in by_mode.items():
            made = TABLES[question](mode, answer)
            console.print(f"\n## {made.title}")
            made.title, made.box = None, box.MARKDOWN
            for row in made.rows:
                row.end_section = False
            console.print(made)
    lines = [line.rstrip() for line in page.getvalue().splitlines()]
    path.write_text("\n".join(lines) + "\n")


# ------------------------------------------------------------------ statistics


def quartiles(values):
    if len(values) < 2:
        return values * 3
    # "inclusive" stays within the values, also if these are two or three.
    return statistics.quantiles(values, n=4, method="inclusive")


def differences(one, other):
    """Round by round, so that a slow round affects both."""
    return [a - b for a, b in zip(one, other, strict=True)]


def ratios(one, other):
    return [a / b for a, b in zip(one, other, strict=True)]


def added_of_keras(rounds, rival):
    """The time a rival adds to the bare step, relative to the median for Keras' L2.

    `None` if the latter is lost in the noise: its lower quartile is not above 0.
    """
    low, keras_adds, _ = quartiles(differences(rounds[KERAS], rounds[BARE]))
    if low <= 0:
        return None
    added = differences(rounds[rival], rounds[BARE])
    return quartiles([extra / keras_adds for extra in added])


def loss_split(rounds):
    """The time the wrapper adds to `attach`, relative to the bare step."""
    return quartiles(ratios(differences(rounds[OURS], rounds["attach"]), rounds[BARE]))


# ---------------------------------------------------------------------- tables


def table(title, *columns):
    made = Table(title=title, box=box.ASCII2, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made


def spread(values, unit=1.0, digits=3):
    if values is None:
        return "noise"
    low, median, high = (f"{unit * value:.{digits}g}" for value in values)
    return f"{median} ({low} to {high})"


def step_table(mode, answer):
    made = table(
        f"Step, {mode}",
        *("network", "rival", "ms per step", "of bare step", "added, of Keras' L2"),
    )
    for network, rounds in answer.items():
        for rival, seconds in rounds.items():
            made.add_row(
                network,
                rival,
                spread(quartiles(seconds), 1e3),
                spread(quartiles(ratios(seconds, rounds[BARE]))),
                spread(added_of_keras(rounds, rival), digits=2),
            )
        if "attach" in rounds:
            made.add_row(
                network, "loss split", "", spread(loss_split(rounds), digits=2)
            )
            for rival in OUR_DECAYS:
                decay = spread(quartiles(ratios(rounds[rival], rounds[DECAY])))
                made.add_row(network, f"{rival}, of Keras' decay", "", decay)
        made.add_section()
    return made


def counts_table(mode, answer):
    rivals = [rival for rival in next(iter(answer.values())) if rival != BARE]
    added = [f"{rival} adds" for rival in rivals]
    made = table(f"Counts of a step, {mode}", "network", "count", BARE, *added)
    for network, counts in answer.items():
        for key in dict.fromkeys(key for each in counts.values() for key in each):
            # The same in every process.
            bare = counts[BARE].get(key, [0])[0]
            digits = 0 if isinstance(bare, int) else 2
            extra = [
                f"{counts[rival].get(key, [0])[0] - bare:+,.{digits}f}"
                if rival in counts
                else ""
                for rival in rivals
            ]
            if {*extra} - {"", "+0", "+0.00"}:
                made.add_row(network, key, f"{bare:,.{digits}f}", *extra)
        made.add_section()
    return made


def memory_table(mode, answer):
    made = table(f"Forward pass, {mode}", "penalty", "memory, of the weight's")
    for name, shares in answer.items():
        made.add_row(name, f"{max(shares):.2f}")
    return made


def watching_table(mode, answer):
    made = table(f"Watching, {mode}", "network", "watcher", "% of an epoch on top")
    for network, rounds in answer.items():
        for watcher, seconds in rounds.items():
            extra = quartiles(ratios(seconds, rounds["none"]))
            made.add_row(network, watcher, spread([100 * (x - 1) for x in extra], 1, 2))
    return made


def around_table(mode, answer):
    made = table(f"Around the steps, {mode}", "what", "seconds")
    for name, seconds in answer.items():
        made.add_row(name, spread(quartiles(seconds)))
    return made


def path_table(mode, answer):
    columns = "network", "way", "seconds", "of l2_path"
    made = table(f"A path of strengths, {mode}", *columns)
    for network, rounds in answer.items():
        for name, seconds in rounds.items():
            shares = ratios(seconds, rounds["l2_path"])
            row = spread(quartiles(seconds)), spread(quartiles(shares))
            made.add_row(network, name, *row)
        made.add_section()
    return made


def growth_table(mode, answer):
    made = table(
        f"Growth, {mode}, ms",
        *("weights", "Keras' L2 adds", "L2AllWeights adds", "one read of memory"),
    )
    for count, rounds in answer.items():
        made.add_row(
            f"{int(count):.0e}",
            spread(quartiles(differences(rounds[KERAS], rounds[BARE])), 1e3),
            spread(quartiles(differences(rounds[OURS], rounds[BARE])), 1e3),
            spread(quartiles(rounds["read of memory"]), 1e3),
        )
    return made


TABLES = {
    "step": step_table,
    "counts": counts_table,
    "memory": memory_table,
    "watching": watching_table,
    "around": around_table,
    "path": path_table,
    "growth": growth_table,
}


# ------------------------------------------------------------------------ plot


def draw(results, path):
    answers = results["answers"]
    panels = [q for q in PANELS if q in answers]
    if not panels:
        return
    figure = Figure(figsize=(5.5 * len(panels), 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(results["machine"], fontsize="small")
    for axes, question in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        PANELS[question](axes, answers[question])
    figure.savefig(path, dpi=120)


def step_panel(axes, by_mode):
    rivals = {"by hand": "0.75", DECAY: "0.5", OURS: "0.15"}
    rows = [
        (f"{network}\n{mode}", rounds)
        for mode, answer in by_mode.items()
        for network, rounds in answer.items()
        if not network.endswith("computing")
    ]
    for number, (rival, shade) in enumerate(rivals.items()):
        places = [row + 0.27 * (number - 1) for row in range(len(rows))]
        added = [
            (rival in rounds and added_of_keras(rounds, rival)) or [0, 0, 0]
            for _, rounds in rows
        ]
        low, median, high = zip(*added, strict=True)
        errors = [
            [max(m - x, 0) for m, x in zip(median, low, strict=True)],
            [max(x - m, 0) for m, x in zip(median, high, strict=True)],
        ]
        style = {"height": 0.25, "color": shade, "ecolor": "0.4"}
        axes.barh(
            places, median, xerr=errors, error_kw={"lw": 0.8}, label=rival, **style
        )
    for row, (_, rounds) in enumerate(rows):
        if added_of_keras(rounds, OURS) is None:
            axes.text(0.05, row, "all within the noise", va="center", fontsize=6)
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlim(-0.25, 2)
    axes.set(xlabel="added to a step, of what Keras' L2 adds", title="Step")
    axes.legend(fontsize="small", loc="upper right")


def around_panel(axes, by_mode):
    layers = {
        int(name.split()[1]): statistics.median(seconds)
        for name, seconds in by_mode["tensorflow"].items()
        if name.startswith("attach") and name.endswith("layers")
    }
    axes.loglog(list(layers), list(layers.values()), "o-", color="0.15")
    axes.set(xlabel="layers", ylabel="seconds to attach", title="Attach")


def growth_panel(axes, by_mode):
    styles = dict(zip(by_mode, ("o-", "s-", "^-", "D-"), strict=False))
    for mode, answer in by_mode.items():
        added = {
            int(count): 1e3 * statistics.median(differences(rounds[OURS], rounds[BARE]))
            for count, rounds in answer.items()
        }
        # A logarithmic axis can't show differences below 0, which are noise.
        added = {count: ms for count, ms in added.items() if ms > 0}
        axes.loglog(list(added), list(added.values()), styles[mode], label=mode)
    read = {
        int(count): 1e3 * statistics.median(rounds["read of memory"])
        for count, rounds in answer.items()
    }
    label = "one read of memory"
    axes.loglog(list(read), list(read.values()), "--", color="black", label=label)
    axes.set(xlabel="weights", ylabel="added to a step (ms)", title="Growth")
    axes.legend(fontsize="small")


PANELS = {"step": step_panel, "around": around_panel, "growth": growth_panel}
