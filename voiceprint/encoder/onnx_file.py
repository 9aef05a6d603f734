"""Speaker models by the package's own ONNX Runtime."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from voiceprint.encoder.features import Features
from voiceprint.encoder.model_encoder import ModelEncoder, Network
from voiceprint.encoder.model_file import ModelFile
from voiceprint.encoder.runtime import Session
from voiceprint.errors import EncoderError


class OnnxFileEncoder(ModelEncoder):
    """A speaker model by the ONNX Runtime of the default encoder, with features by kaldi-native-fbank.

    The embeddings are those of `SherpaEncoder`, and the space is the same.
    """

    @staticmethod
    def _load(model: ModelFile) -> Network:
        features, session = Features(model.front_end), Session(model.read())
        is_nemo = model.front_end.framework == "nemo"
        if len(session.inputs) != 1 + is_nemo:
            raise EncoderError(
                f"{model.path} has the inputs {', '.join(session.inputs)}: a model of "
                f"{model.front_end.framework} has {1 + is_nemo}."
            )
        return partial(_run_nemo if is_nemo else _run_general, session, features)


def _run_general(session: Session, features: Features, audio: NDArray[np.float32], /) -> NDArray[np.float32]:
    inputs = {session.inputs[0]: features(audio)[None]}
    return np.asarray(session.run(session.outputs[0], **inputs)[0])


def _run_nemo(session: Session, features: Features, audio: NDArray[np.float32], /) -> NDArray[np.float32]:
    """NeMo's models take the bands first, and the number of frames beside them."""
    bands = np.ascontiguousarray(features(audio).T[None])
    inputs = zip(session.inputs, (bands, np.array([bands.shape[2]], dtype=np.int64)), strict=True)
    return np.asarray(session.run(session.outputs[1], **dict(inputs))[0])
