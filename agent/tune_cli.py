"""``turbo tune``: measure how the server is fastest here, and keep what was found."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.options import AsObject

if TYPE_CHECKING:
    from agent.core.config import Settings
    from agent.core.server_launching import Prepared
    from agent.core.tuned_store import Subject
    from agent.measure.configuration import Space
    from agent.measure.tuning import Tuning

_REPORT_S = 3.0
"""Of the budget, for the report; a quarter of a small one."""


def tune(
    model: Annotated[
        Path | None, typer.Option(help="A GGUF model file, or a model's name.")
    ] = None,
    budget: Annotated[
        int, typer.Option(min=5, max=86_400, help="Seconds that it may take altogether.")
    ] = 90,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: one in the cache.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured; start nothing.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show what is stored.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Remove what is stored.")] = False,
    as_json: AsObject = False,
) -> None:
    """Find the fastest flags for this model, llama-server and machine by measuring.

    Tries slots, threads, physical batch, flash attention, KV types and speculation, each only where
    you have set nothing. What beats the default side by side is stored and used from then on, until
    model, llama-server or machine change.
    """
    import time

    began = time.monotonic()
    from agent.core.errors import UsageError

    if dry_run + show + forget > 1:
        raise UsageError("Give --dry-run, --show or --forget, not several of them.")
    work = _Work(model, as_json=as_json)
    if show:
        work.show()
    elif forget:
        work.forget()
    elif dry_run:
        work.dry_run(budget)
    else:
        work.measure(budget, began, output)


class _Work:
    """One call of the command."""

    def __init__(self, model: Path | None, *, as_json: bool) -> None:
        import asyncio

        from agent.core.config import load_settings
        from agent.core.determinism import with_tier
        from agent.core.folders import cache_folder
        from agent.core.server_launching import prepare
        from agent.core.tuned_store import FOLDER, subject_of
        from agent.tune_view import console_for

        here = Path.cwd()
        repository = next((x for x in (here, *here.parents) if (x / ".git").exists()), None)
        loaded = load_settings(repository=repository, overrides={"llamacpp_model_path": model})
        _refuse_other_servers(loaded)
        self.settings, self.notes = with_tier(loaded)
        self.prepared: Prepared = asyncio.run(prepare(self.settings, tuned={}))
        basis = self.prepared.basis
        self.subject: Subject = subject_of(self.settings, basis.model, basis.binary, basis.hardware)
        self.folder = cache_folder(FOLDER)
        self.as_json = as_json
        self.human = console_for(err=as_json)

    def show(self) -> None:
        """What is stored."""
        from agent.core.tuned_store import load_tuned

        found = load_tuned(self.folder, self.subject)
        if self.as_json:
            stored = found and {**dataclasses.asdict(found), "values": dict(found.values)}
            typer.echo(json.dumps(stored, indent=2))
        elif found is None:
            typer.echo("Nothing is stored for this model, llama-server and machine: turbo tune")
        else:
            for name, value in found.values.items():
                typer.echo(f"{name.upper()}={value}")
            typer.echo(f"{found.gain:.2f} times as fast as the default, found {found.found_on}")

    def forget(self) -> None:
        """Remove it."""
        from agent.core.tuned_store import forget_tuned

        done = forget_tuned(self.folder, self.subject)
        if self.as_json:
            typer.echo(json.dumps({"forgotten": done}))
        else:
            typer.echo("Forgotten: the defaults hold again." if done else "Nothing was stored.")

    def dry_run(self, budget: int) -> None:
        """What would be measured."""
        from agent.core.terminal import printable
        from agent.tune_view import show_not_tried

        space, facts = self._space(), self._facts()
        if self.as_json:
            variants = [{"label": x.label, "settings": x.values} for x in space.variants]
            told = {"budget_s": budget, "variants": variants, "left_out": dict(space.left_out)}
            typer.echo(json.dumps(facts | told))
            return
        for name, fact in facts.items():
            self.human.print(f"{name}: {printable(fact)}", soft_wrap=True)
        self.human.print(f"Against the default, as far as {budget} s go:")
        for each in space.variants:
            self.human.print(f"  {each.label}", soft_wrap=True)
        show_not_tried(space.left_out, self.human)

    def measure(self, budget: int, began: float, output: Path | None) -> None:
        """Measure, report and store."""
        import time

        from agent.core.folders import cache_folder
        from agent.core.signals import Interrupted, run_until_signal
        from agent.measure.tune import tune as search
        from agent.tune_view import Progress, busy
        from agent.tune_view import show as show_table

        report = output or self.folder / f"{self.prepared.basis.model.stem}-report"
        made = _make(report)
        spent = time.monotonic() - began
        with Progress(budget) as progress:
            for note in (*self.prepared.notes, *self._memory_notes(), *self.notes, *busy()):
                progress.say(note)
            searching = search(
                self.settings,
                self._space(),
                budget_s=budget - spent - min(_REPORT_S, budget / 4),
                watch=progress.see,
                log_dir=cache_folder("tuning-logs", private=True),
            )
            try:
                tuning = run_until_signal(searching)
            except Interrupted as stopped:
                progress.say("Interrupted; nothing is stored.")
                _remove_empty(made)
                raise typer.Exit(stopped.exit_code) from None
            except BaseException:
                _remove_empty(made)
                raise
        show_table(tuning, err=self.as_json)
        files = self._write(tuning, report)
        kept = self._keep(tuning)
        self.human.print(kept, soft_wrap=True)
        self.human.print(f"Report: {', '.join(map(str, files))}", soft_wrap=True)
        if self.as_json:
            from agent.measure.tune_report import as_object

            told = as_object(tuning) | {
                "budget_s": budget,
                "outcome": kept,
                "report": [str(x) for x in files],
            }
            typer.echo(json.dumps(told, indent=2))

    def _memory_notes(self) -> tuple[str, ...]:
        """Where the default is less than what the settings ask for."""
        return self.prepared.plan(port=0, slot_dir=None, api_key_file=Path("KEY_FILE")).notes

    def _space(self) -> Space:
        from agent.core.errors import SettingsError
        from agent.core.tuned_store import load_tuned
        from agent.measure.configuration import Configuration, space_of, with_stored

        space = space_of(self.prepared.basis, self.settings.turbo_candidates)
        with contextlib.suppress(SettingsError):
            found = load_tuned(self.folder, self.subject)
            if found is not None:
                stored = Configuration(tuple(sorted(found.values.items())))
                return with_stored(space, stored, self.prepared.basis)
        return space

    def _keep(self, tuning: Tuning) -> str:
        """Store the winner, or remove what the default has beaten; the outcome in a sentence."""
        import time

        from agent.core.tuned_store import Tuned, forget_tuned, store_tuned

        if tuning.improved and tuning.verdict is not None:
            tuned = Tuned(
                values=tuning.winner.values,
                gain=round(tuning.verdict.gain, 3),
                found_on=time.strftime("%Y-%m-%d %H:%M"),
            )
            path = store_tuned(self.folder, self.subject, tuned)
            return f"Stored in {path}; runs use it from now on (turbo server plan)."
        if tuning.finished and forget_tuned(self.folder, self.subject):
            return "The default is used from now on; what was stored is removed."
        return "Nothing is stored."

    def _facts(self) -> dict[str, str]:
        """What is measured, and where."""
        basis = self.prepared.basis
        hardware = basis.hardware
        return {
            "model": f"{basis.info.name} ({basis.model.name})",
            "llama-server": f"{basis.binary.version} {basis.binary.commit}".strip(),
            "machine": ", ".join(
                [f"{hardware.physical_cores} cores of {hardware.cpu}"]
                + [device.description for device in hardware.devices]
            ),
        }

    def _write(self, tuning: Tuning, folder: Path) -> list[Path]:
        """The report."""
        from agent.core.errors import UsageError
        from agent.measure.tune_plot import draw
        from agent.measure.tune_report import as_markdown, as_object

        facts = self._facts()
        files = [folder / f"tune.{ending}" for ending in ("md", "json", "png")]
        try:
            files[0].write_text(as_markdown(tuning, facts), encoding="utf-8")
            told = json.dumps(facts | as_object(tuning), indent=2)
            files[1].write_text(told + "\n", encoding="utf-8")
            if not tuning.samples:
                return files[:2]
            draw(tuning, f"{facts['model']} on {facts['machine']}", files[2])
        except OSError as error:
            raise UsageError(
                f"The report cannot be written to {folder}: {error.strerror or error}",
                fix="Choose another folder with --output.",
            ) from None
        return files


def _make(folder: Path) -> list[Path]:
    """Make the folder and those that it is in; what was not there before, the innermost first.
    Raises UsageError."""
    from agent.core.errors import UsageError

    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be made: {error.strerror or error}",
            fix="Choose another one with --output.",
        ) from None
    return made


def _remove_empty(folders: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):  # somebody has put something there
        for folder in folders:
            folder.rmdir()


def _refuse_other_servers(settings: Settings) -> None:
    from agent.core.errors import SettingsError

    if settings.backend == "ollama":
        raise SettingsError(
            "BACKEND=ollama: Ollama starts its server itself, so there is nothing to tune.",
            fix="Unset BACKEND, or set it to llamacpp.",
        )
    if settings.llamacpp_url is not None:
        raise SettingsError(
            "LLAMACPP_URL is set: whoever started that server chose its flags.",
            fix="Unset LLAMACPP_URL to tune a server of our own.",
        )
