"""What a program has stored can be read by later versions."""

from __future__ import annotations

import pickle

import pytest

from gearman_pool import ClientOptions, JobReference, JobStatus, ServerAddress
from gearman_pool.errors import ServerUnavailable

# By the names of their fields: pickles have them by place.
REFERENCE = JobReference(server="10.0.0.1:4730", handle="H:host:17", unique="photo 17/a")
STATUS = JobStatus(known=True, running=True, numerator=3, denominator=10, waiting_clients=2, server="10.0.0.1:4730")

#: What 0.1.0 made of them, with protocol 4. What a later version writes differently is added, not put in their place.
REFERENCE_0_1_0 = (
    b"\x80\x04\x95V\x00\x00\x00\x00\x00\x00\x00\x8c\x10gearman_pool.job\x94\x8c\x0cJobReference\x94\x93\x94)\x81\x94"
    b"]\x94(\x8c\r10.0.0.1:4730\x94\x8c\tH:host:17\x94\x8c\nphoto 17/a\x94eb."
)
STATUS_0_1_0 = (
    b"\x80\x04\x95B\x00\x00\x00\x00\x00\x00\x00\x8c\x10gearman_pool.job\x94\x8c\tJobStatus\x94\x93\x94)\x81\x94"
    b"]\x94(\x88\x88K\x03K\nK\x02\x8c\r10.0.0.1:4730\x94eb."
)

PICKLES = {"0.1.0 reference": (REFERENCE_0_1_0, REFERENCE), "0.1.0 status": (STATUS_0_1_0, STATUS)}
TEXTS = {"0.1.0": "10.0.0.1:4730/H:host:17/photo%2017%2Fa"}


@pytest.mark.parametrize("stored", PICKLES)
def test_pickle_of_an_earlier_version_is_read(stored):
    pickled, meant = PICKLES[stored]
    again = pickle.loads(pickled)
    assert again == meant
    # Equality alone would not see a field that the pickle does not set.
    assert repr(again) == repr(meant)


@pytest.mark.parametrize("version", TEXTS)
def test_text_of_a_reference_of_an_earlier_version_is_read(version):
    assert JobReference.parse(TEXTS[version]) == REFERENCE


HOMES = [
    (REFERENCE, "job"),
    (STATUS, "job"),
    (ServerAddress("10.0.0.1", 4731), "options"),
    (ClientOptions(max_retries=2), "options"),
    (ServerUnavailable("no server", servers={"10.0.0.1:4730": "refused"}), "errors"),
]


@pytest.mark.parametrize(("thing", "home"), HOMES, ids=[type(thing).__name__ for thing, _ in HOMES])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_names_the_module_that_users_import_from_and_is_read_back(thing, home, protocol):
    # A pickle that names a private module could not be read once that is renamed, nor by an older version now.
    pickled = pickle.dumps(thing, protocol)
    assert f"gearman_pool.{home}".encode() in pickled
    again = pickle.loads(pickled)
    assert repr(again) == repr(thing)
