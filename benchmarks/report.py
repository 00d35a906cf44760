"""Tables and the picture of what run.py measured."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table


def show(results):
    console = Console(width=120)
    for question, by_mode in results["answers"].items():
        for mode, answer in by_mode.items():
            console.print(TABLES[question](mode, answer))


def table(title, *columns):
    made = Table(title=title, box=box.ASCII2, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made


def spread(q, unit=1.0, digits=3):
    low, median, high = (f"{unit * q[k]:.{digits}g}" for k in ("low", "median", "high"))
    return f"{median} ({low} to {high})"


def step_table(mode, answer):
    made = table(
        f"Step cost, {mode}",
        *("network", "rival", "ms per step", "of bare step", "added, of Keras' L2"),
    )
    for network, rivals in answer.items():
        for rival, row in rivals.items():
            if rival == "loss split, of bare step":
                made.add_row(network, rival, "", spread(row), "")
            else:
                made.add_row(
                    network,
                    rival,
                    spread(row["milliseconds"]),
                    spread(row["of bare step"]),
                    spread(row["added, of Keras L2"], digits=2),
                )
        made.add_section()
    return made


def memory_table(mode, answer):
    made = table(f"Forward pass, {mode}", "penalty", "memory, of the weight's")
    for name, value in answer.items():
        made.add_row(name, f"{value:.2f}")
    return made


def watching_table(mode, answer):
    made = table(f"Watching, {mode}", "network", "watcher", "% of an epoch on top")
    for network, rows in answer.items():
        for watcher, row in rows.items():
            made.add_row(network, watcher, spread(row, 100))
    return made


def attach_table(mode, answer):
    made = table(f"Attaching, {mode}", "model", "seconds")
    for count, row in answer["layers"].items():
        made.add_row(f"{count} layers", spread(row))
    for name, row in answer.get("NASNetMobile", {}).items():
        made.add_row(f"NASNetMobile, {name}", spread(row))
    return made


def path_table(mode, answer):
    made = table(f"A path of strengths, {mode}", "way", "seconds", "of l2_path")
    ours = answer["l2_path"]["median"]
    for name, row in answer.items():
        made.add_row(name, spread(row), f"{row['median'] / ours:.2f}")
    return made


def growth_table(mode, answer):
    made = table(
        f"Growth, {mode}",
        *("weights", "Keras' L2 adds, ms", "ours adds, ms", "one read of memory, ms"),
    )
    for count, row in answer["weights"].items():
        made.add_row(
            f"{int(count):.0e}",
            spread(row["keras.regularizers.L2"]),
            spread(row["attach"]),
            spread(answer["read of memory"][count]),
        )
    return made


TABLES = {
    "step": step_table,
    "memory": memory_table,
    "watching": watching_table,
    "attach": attach_table,
    "path": path_table,
    "growth": growth_table,
}


def draw(results, path):
    answers = results["answers"]
    panels = [q for q in ("step", "attach", "growth") if q in answers]
    if not panels:
        return
    figure = Figure(figsize=(5.5 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(results["machine"], fontsize="small")
    for axes, question in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        PANELS[question](axes, answers[question])
    figure.savefig(path, dpi=120)


def step_panel(axes, by_mode):
    rivals = ("by hand", "weight_decay", "L2AllWeights")
    shades = ("0.75", "0.5", "0.15")
    labels = [(mode, network) for mode in by_mode for network in by_mode[mode]]
    for number, (rival, shade) in enumerate(zip(rivals, shades, strict=True)):
        places = [k + 0.27 * (number - 1) for k in range(len(labels))]
        added = [
            by_mode[m][n][rival]["added, of Keras L2"]["median"] for m, n in labels
        ]
        axes.barh(places, added, height=0.25, color=shade, label=rival)
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(labels)), [f"{n}\n{m}" for m, n in labels], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlim(-0.5, 3)
    axes.set(xlabel="added to a step, of what Keras' L2 adds", title="Step")
    axes.legend(fontsize="small")


def attach_panel(axes, by_mode):
    layers = by_mode["tensorflow"]["layers"]
    counts = [int(count) for count in layers]
    axes.loglog(counts, [row["median"] for row in layers.values()], "o-", color="0.15")
    axes.set(xlabel="layers", ylabel="seconds to attach", title="Attach")


def growth_panel(axes, by_mode):
    styles = dict(zip(by_mode, ("o-", "s-", "^-", "D-"), strict=False))
    for mode, answer in by_mode.items():
        counts = [int(count) for count in answer["weights"]]
        rows = answer["weights"].values()
        added = [max(row["attach"]["median"], 1e-3) for row in rows]
        axes.loglog(counts, added, styles[mode], label=mode)
    read = [row["median"] for row in answer["read of memory"].values()]
    axes.loglog(counts, read, "--", color="black", label="one read of memory")
    axes.set(xlabel="weights", ylabel="added to a step (ms)", title="Growth")
    axes.legend(fontsize="small")


PANELS = {"step": step_panel, "attach": attach_panel, "growth": growth_panel}
