"""The short way of a request that was made before: whatever changes in between, the answer is the first one's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgeaid import errors
from edgeaid.models.repository import EMBEDDED

from ..support.daemon import Running

IMAGE = np.load(EMBEDDED / "digits" / "1" / "golden" / "0.in.npy")


@pytest.mark.parametrize("fast", [True, False])
def test_the_same_tensor_in_any_form_is_answered_alike(daemon: Running, fast: bool) -> None:
    wide = np.zeros((*IMAGE.shape[:-1], 2 * IMAGE.shape[-1]), IMAGE.dtype)
    strided = wide[..., ::2]
    strided[...] = IMAGE
    with daemon.client(fast=fast) as client:
        (name,) = (t["name"] for t in client.metadata("digits")["inputs"])
        first = client.infer("digits", IMAGE)["scores"]
        for form in (
            IMAGE,
            {name: IMAGE},
            IMAGE[0],
            IMAGE.tolist(),
            strided,
            {name: strided},
            np.asfortranarray(IMAGE),
        ):
            for options in ({}, {"version": 1}, {"version": "1"}, {"timeout": 20.0}, {"priority": 1}):
                answer = client.infer("digits", form, **options)
                assert np.array_equal(answer["scores"], first)
                assert (answer.model, answer.version, answer.device) == ("digits", "1", "cpu0")


@pytest.mark.parametrize("fast", [True, False])
def test_what_does_not_fit_is_refused_after_a_good_request_as_before_it(daemon: Running, fast: bool) -> None:
    wrong = [IMAGE.astype(np.float64), IMAGE[..., :1, :], {"nobody": IMAGE}, {}, np.zeros(0, IMAGE.dtype)]
    with daemon.client(fast=fast) as fresh, daemon.client(fast=fast) as used:
        first = used.infer("digits", IMAGE)["scores"]
        for inputs in wrong:
            texts = []
            for client in (fresh, used):
                with pytest.raises(errors.InvalidRequest) as refused:
                    client.infer("digits", inputs)
                texts.append(str(refused.value))
            assert texts[0] == texts[1]
        for options in ({"timeout": -1.0}, {"timeout": "1"}, {"priority": 900}, {"version": 1.5}):
            with pytest.raises(errors.InvalidRequest):
                used.infer("digits", IMAGE, **options)
        assert np.array_equal(used.infer("digits", IMAGE)["scores"], first)


@pytest.mark.parametrize("fast", [True, False])
def test_a_client_goes_on_when_its_model_is_replaced_and_when_its_daemon_is(
    start: Callable[..., Running], fast: bool
) -> None:
    source = EMBEDDED / "digits" / "1"
    daemon = start(models={"one": source / "model.tflite"})
    with daemon.client(fast=fast) as client:
        first = client.infer("one", IMAGE)
        client.infer("one", IMAGE)
        with daemon.client() as other:
            stored = other.push("one", source / "model.tflite")
        assert client.infer("one", IMAGE).version == stored["version"] != first.version
        daemon.stop()
        with pytest.raises(errors.Unavailable):
            client.infer("one", IMAGE)
        daemon.start()
        again = client.infer("one", IMAGE)
        assert all(np.array_equal(again[name], first[name]) for name in first.outputs)
        with daemon.client() as other:
            other.unload("one")
        with pytest.raises(errors.EdgeaiError):
            client.infer("one", IMAGE)
