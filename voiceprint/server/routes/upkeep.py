"""The galleries of a key, and the state of one: index, embedding spaces, check, calibration, retention."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from voiceprint.identification.acceptance import configured_target
from voiceprint.index import IndexStatus
from voiceprint.models import Finding, SpaceCoverage
from voiceprint.privacy.retention import PurgeReport, RetentionSchedule, purge_expired, retention_schedule
from voiceprint.recognizer import OpusAgentVoiceRecognizer
from voiceprint.scoring.calibration import calibration_for
from voiceprint.server.access import Access, allowed, any_key, changing, service_of
from voiceprint.server.keys import ROLES, Principal

router = APIRouter(tags=["upkeep"])
_GALLERY = "/v1/galleries/{gallery}"

Anyone = Annotated[Access, Depends(allowed(*ROLES))]
Administers = Annotated[Access, Depends(changing("admin"))]


class GalleryName(BaseModel):
    """A gallery of the key."""

    name: str


class GalleriesAnswer(BaseModel):
    """The galleries and the roles of the key. roles: with those that they include."""

    galleries: list[GalleryName]
    roles: list[str]


@router.get("/v1/galleries", operation_id="galleries")
async def list_galleries(
    request: Request, principal: Annotated[Principal, Depends(any_key)]
) -> GalleriesAnswer:
    """List the galleries of the key, and its roles."""
    names = [GalleryName(name=name) for name in service_of(request) if principal.may_use(name)]
    return GalleriesAnswer(galleries=names, roles=sorted(principal.roles))


@router.get(f"{_GALLERY}/index", operation_id="index_status")
async def index_status(access: Anyone) -> IndexStatus:
    """Read the state of the index, which follows the store first."""
    return await access.run(lambda recognizer: recognizer.index_status())


@router.post(f"{_GALLERY}/index/rebuild", operation_id="rebuild_index")
async def rebuild_index(access: Administers) -> IndexStatus:
    """Build the index of this worker anew from the store, and write its snapshot."""
    return await access.change(lambda recognizer: recognizer.rebuild_index(), IndexStatus)


class SpacesAnswer(BaseModel):
    """The embedding spaces of the store: see `voiceprint.SpaceCoverage`."""

    spaces: list[SpaceCoverage]


@router.get(f"{_GALLERY}/spaces", operation_id="spaces")
async def spaces(access: Anyone) -> SpacesAnswer:
    """Count the voiceprints and callers of each embedding space. Reads all records."""
    return await access.run(lambda recognizer: SpacesAnswer(spaces=recognizer.spaces()))


class CheckRequest(BaseModel):
    """fix: repair data that is derived from the records."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fix: bool = False


class CheckAnswer(BaseModel):
    """The faults of the store, and the differences of index and store; empty without any."""

    findings: list[Finding]


@router.post(f"{_GALLERY}/check", operation_id="check")
async def check(access: Administers, body: Annotated[CheckRequest | None, Body()] = None) -> CheckAnswer:
    """Check the store and the index of this worker. Reads all records."""
    fix = body is not None and body.fix
    return await access.change(
        lambda recognizer: CheckAnswer(findings=recognizer.check(fix=fix)), CheckAnswer
    )


class AdviceAnswer(BaseModel):
    """advice: a sentence where the cosine threshold accepts many strangers; else null."""

    advice: str | None


@router.get(f"{_GALLERY}/threshold-advice", operation_id="threshold_advice")
async def threshold_advice(access: Anyone) -> AdviceAnswer:
    """Estimate from the enrolled callers whether the threshold accepts many strangers."""
    return await access.run(lambda recognizer: AdviceAnswer(advice=recognizer.threshold_advice()))


Decides = Literal["target", "probability", "threshold"]


class CalibrationAnswer(BaseModel):
    """The rule by which matches are accepted, and the calibration of the scores.

    decides: whether a target FPIR, a calibrated similarity (a probability) or a cosine threshold decides.
    target_fpir: in effect; null where another rule decides. target_set: by `PUT`; null where it is that of
    the configuration, `configured_target`. similarity_threshold: of the configuration. scale, offset,
    stranger_shift, stranger_spread, about: see `voiceprint.scoring.Calibration`.
    """

    decides: Decides
    target_fpir: float | None
    target_set: float | None
    configured_target: float | None
    similarity_threshold: float
    encoder: str
    scale: float
    offset: float
    stranger_shift: float
    stranger_spread: float
    about: dict[str, Any] = {}


def _calibration(access: Access, recognizer: OpusAgentVoiceRecognizer) -> CalibrationAnswer:
    config, overrides = recognizer.config, access.service.overrides
    space = recognizer.encoder.name
    target = configured_target(config, space)
    fitted = calibration_for(space, config.calibration_path)
    by_similarity: Decides = "probability" if config.calibrated_similarity else "threshold"
    return CalibrationAnswer(
        decides="target" if target is not None else by_similarity,
        target_fpir=target,
        target_set=overrides.target(access.gallery),
        configured_target=overrides.configured(access.gallery),
        similarity_threshold=config.similarity_threshold,
        encoder=space,
        scale=fitted.scale,
        offset=fitted.offset,
        stranger_shift=fitted.stranger_shift,
        stranger_spread=fitted.stranger_spread,
        about=fitted.about,
    )


@router.get(f"{_GALLERY}/calibration", operation_id="calibration")
async def calibration(access: Anyone) -> CalibrationAnswer:
    """Read the rule by which matches are accepted, and the calibration of the scores."""
    return await access.run(lambda recognizer: _calibration(access, recognizer))


class Target(BaseModel):
    """target_fpir: accepted share of strangers' calls that are identified as a caller; null returns to the
    configuration."""

    model_config = ConfigDict(extra="forbid", strict=True)

    target_fpir: float | None = Field(gt=0, lt=1, allow_inf_nan=False)


@router.put(f"{_GALLERY}/calibration", operation_id="set_target")
async def set_target(access: Administers, body: Target) -> CalibrationAnswer:
    """Set the target FPIR of the gallery, for all workers within a second, and after a restart."""

    def work(_: OpusAgentVoiceRecognizer) -> CalibrationAnswer:
        access.service.set_target(access.gallery, body.target_fpir)
        return _calibration(access, access.recognizer)  # which has the new target

    return await access.change(work, CalibrationAnswer)


@router.get(f"{_GALLERY}/retention", operation_id="retention_schedule")
async def retention(access: Annotated[Access, Depends(allowed("admin"))]) -> RetentionSchedule:
    """Count the callers by the month in which they expire. Reads all records."""
    return await access.run(
        lambda recognizer: retention_schedule(
            recognizer.storage, recognizer.config.retention, recognizer.config.retention_period
        )
    )


class Purge(BaseModel):
    """dry_run: only report. receipts: search every file of the store for remains of each caller."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dry_run: bool = True
    receipts: bool = False


@router.post(f"{_GALLERY}/retention/purge", operation_id="purge_expired")
async def purge(access: Administers, body: Annotated[Purge | None, Body()] = None) -> PurgeReport:
    """Delete the expired callers; by default, only report who they are."""
    wanted = Purge() if body is None else body
    return await access.change(
        lambda recognizer: purge_expired(
            recognizer.storage,
            recognizer.config.retention_period,
            dry_run=wanted.dry_run,
            receipts=wanted.receipts,
        ),
        PurgeReport,
    )
