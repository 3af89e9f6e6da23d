"""`pa-middleware merge`: a reference between policy and reference, as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def merge(
    pair: Annotated[
        str, typer.Argument(help="A known pair, a folder with policy and reference in it, or POLICY,REFERENCE.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    alpha: Annotated[float, typer.Option(help="0 is the reference, 1 the policy.")],
    method: Annotated[
        Literal["linear", "ties", "dare_linear", "dare_ties", "emr"],
        typer.Option(help="How the models' differences become one."),
    ] = "linear",
    density: Annotated[
        float | None, typer.Option(help="Part of each difference that ties and dare keep; by default 0.2.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of what dare keeps; by default 0.")] = None,
    extra: Annotated[
        list[str] | None, typer.Option(help="A further policy of the same reference: folder or hub name; repeatable.")
    ] = None,
    anchor: Annotated[
        str | None, typer.Option(help="The model that policy and reference both come from: folder or hub name.")
    ] = None,
) -> None:
    """Merge a pair's models into a reference: pi_ref + alpha * (pi_theta - pi_ref), weight by weight."""
    from pa_middleware.merging.recipe import Recipe, checked_alpha
    from pa_middleware.merging.writing import write_merged
    from pa_middleware.scoring.errors import PairError
    from pa_middleware.scoring.named_pairs import find_pair

    try:
        checked_alpha(alpha)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--alpha") from error
    try:
        recipe = Recipe(method, density, seed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--density, --seed") from error
    try:
        policy, reference = find_pair(pair)
    except PairError as error:
        raise typer.BadParameter(str(error), param_hint="PAIR") from error
    try:
        note = write_merged(policy, reference, out, alpha=alpha, recipe=recipe, extras=extra or (), anchor=anchor)
    except FileExistsError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from error
    except (OSError, ValueError, PairError) as error:
        raise typer.BadParameter(str(error), param_hint="the models") from error
    typer.echo(f"{out}: {note['weights']} weights, {method} at alpha {alpha:g}; merge.json says of what.")
