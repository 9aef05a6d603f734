"""The threshold: FPIR and FNIR measured on this gallery, and the target that decides."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import RedirectResponse

from voiceprint.errors import InvalidArgumentError
from voiceprint.identification.acceptance import AcceptanceRule
from voiceprint.server.console.picture import picture_of
from voiceprint.server.console.visit import ConsoleRoute, Posted, Visit, visitor
from voiceprint.validation import shown

router = APIRouter(prefix="/g/{gallery}", route_class=ConsoleRoute)


@router.get("/threshold")
async def threshold_page(
    visit: Annotated[Visit, Depends(visitor("identify"))], saved: bool = False
) -> Response:
    """The page."""

    def work() -> dict[str, Any]:
        with visit.acting() as recognizer:
            picture = picture_of(recognizer, by_llr=True)
            rule = AcceptanceRule.of_identification(recognizer.config, recognizer.encoder.name, None)
            scores = recognizer.left_out_scores() if picture is None else picture.scores
            above = int((scores.stranger_similarities >= rule.threshold).sum())
        return {
            "picture": picture,
            "rule": rule,
            "set_target": visit.service.overrides.target(visit.opened),
            "above_cosine": above,
            "callers": scores.callers,
            "steps": [] if picture is None else [step._asdict() for step in picture.steps()],
        }

    return visit.page("threshold.html", saved=saved, **await visit.service.work.run(work))


@router.post("/threshold")
async def save_target(visit: Annotated[Visit, Depends(visitor("admin"))], body: Posted) -> Response:
    """Save a target in percent, or return to the configured rule."""
    target = None
    if "reset" not in body.fields:
        text = str(body.fields.get("percent", ""))
        try:
            target = float(text.replace(",", ".")) / 100.0
        except ValueError:
            raise InvalidArgumentError(
                f"The target is {shown(text)}: give a number of percent, such as 1."
            ) from None
        if not 0.0 < target < 1.0:
            raise InvalidArgumentError(f"The target is {text} %: give a number above 0 and below 100.")

    def save() -> None:
        with visit.acting():
            visit.service.set_target(visit.opened, target)

    await visit.service.work.run_light(save)
    return RedirectResponse("threshold?saved=true", status_code=303)
